"""What a run of the stage says of it: counts and means, in `summary.json`."""

import logging
from pathlib import Path

import polars as pl

from cltdb.engine.workspace import read_parquet, write_json
from cltdb.intervals import of_values

logger = logging.getLogger(__name__)
GOOD_SCORE = 0.8
REASONS = 3
"""Of failed explanations, or of questions without a usable answer: the commonest."""


def summarise(directory, settings, *, n_live):
    """Counts and means of the whole stage, logged and written to `summary.json`; `ended`: the budgets of an artifact that one of them ended."""
    directory = Path(directory)
    explanations, scores, requests = (_table(directory, table) for table in ("explanations", "scores", "requests"))
    n_chosen = 0 if explanations is None else explanations.n_unique(["layer", "feature"])
    summary = {"n_live": n_live, "n_chosen": n_chosen, "explainers": {}, "scores": {}, "requests": _spent(requests)}
    if requests is not None and (requests["status"] == "skipped_budget").any():
        summary["ended"] = {name: getattr(settings, name) for name in ("max_cost_usd", "max_requests")}
    if n_chosen:
        own = explanations.filter(~pl.col("explainer").str.starts_with("baseline:"))
        for (explainer, side), rows in own.group_by("explainer", "side", maintain_order=True):
            judged = scores.filter(explainer=explainer, side=side)
            unanswered = judged.filter(pl.col("n_failed") > 0)["detail"].str.json_path_match("$.error").alias("error")
            summary["explainers"].setdefault(explainer, {})[side] = {
                "model": rows["model"].drop_nulls().first(),
                "status": dict(rows["status"].value_counts(sort=True, name="n").sort("status").iter_rows()),
                "reasons": _commonest(rows.filter(pl.col("status") == "failed")["error"]),
                "n_scored": judged.filter(pl.col("score").is_not_null()).n_unique(["layer", "feature"]),
                "unanswered": {"n": int(judged["n_failed"].sum()), "reasons": _commonest(unanswered.drop_nulls())},
            }
        for (explainer, side, scorer), rows in sorted(scores.group_by("explainer", "side", "scorer"), key=lambda group: group[0]):
            asked, least = rows.drop_nulls("score"), -1 if scorer == "simulation" else 0
            measured = asked["score"]
            summary["scores"].setdefault(explainer, {})[scorer if side == "input" else f"{scorer} ({side})"] = {
                "n_scored": len(measured),
                "mean": measured.mean(),
                "ci": of_values(measured.to_list(), asked["n"].sum(), least=least),
                "n_good": int((measured >= GOOD_SCORE).sum()),
                "n_failed_windows": int(rows["n_failed"].sum()),
            }
    write_json(directory / "summary.json", summary)
    for explainer, by_scorer in summary["scores"].items():
        for scorer, found in by_scorer.items():
            if found["n_scored"]:
                logger.info(
                    "explain: %s %s: mean %.3f%s of %d, %d at %.1f or more",
                    *(
                        explainer,
                        scorer,
                        found["mean"],
                        said_interval(found, "95 % "),
                        found["n_scored"],
                        found["n_good"],
                        GOOD_SCORE,
                    ),
                )


def said_interval(numbers, what=""):
    """The interval of a mean as it stands behind it, nothing of a single feature's. numbers: of a scorer in summary.json."""
    return " ({}{:.3f} to {:.3f})".format(what, *numbers["ci"]) if numbers["ci"] else ""


def _commonest(errors):
    """[(error, how often)], the commonest first."""
    return errors.value_counts(sort=True, name="n").sort("n", "error", descending=[True, False]).head(REASONS).rows()


def _table(directory, name):
    """All rows of a table of the artifact; None where it has none."""
    paths = sorted((directory / "tables" / name).glob("*.parquet"))
    return read_parquet(*paths) if paths else None


def _spent(requests):
    """Of the requests that were used: how many by status, how many of them and at what cost had been paid for before, what the new ones cost, and
    of how many that is unknown."""
    if requests is None:
        return None
    answered = requests.filter(pl.col("status").is_in(["ok", "unusable"]))
    reused, new = answered.filter(pl.col("reused")), answered.filter(~pl.col("reused"))
    return {
        "status": dict(requests["status"].value_counts(sort=True, name="n").sort("status").iter_rows()),
        "n_reused": len(reused),
        "reused_usd": reused["cost_usd"].sum(),
        "new_usd": new["cost_usd"].sum(),
        "n_unpriced": new["cost_usd"].null_count(),
    }
