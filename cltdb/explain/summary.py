"""What a run of the stage says of it: counts and means, in `summary.json`."""

import logging
from pathlib import Path

import numpy as np
import polars as pl

from cltdb.engine.workspace import read_parquet, write_json

logger = logging.getLogger(__name__)
GOOD_SCORE = 0.8
RESAMPLES = 1000
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
            measured = rows["score"].drop_nulls()
            summary["scores"].setdefault(explainer, {})[scorer if side == "input" else f"{scorer} ({side})"] = {
                "n_scored": len(measured),
                "mean": measured.mean(),
                "ci": interval(measured.to_numpy()) if len(measured) else None,
                "n_good": int((measured >= GOOD_SCORE).sum()),
                "n_failed_windows": int(rows["n_failed"].sum()),
            }
    write_json(directory / "summary.json", summary)
    for explainer, by_scorer in summary["scores"].items():
        for scorer, found in by_scorer.items():
            if found["n_scored"]:
                logger.info(
                    "explain: %s %s: mean %.3f (95 %% %.3f to %.3f) of %d, %d at %.1f or more",
                    *(explainer, scorer, found["mean"], *found["ci"], found["n_scored"], found["n_good"], GOOD_SCORE),
                )


def _commonest(errors):
    """[(error, how often)], the commonest first."""
    return errors.value_counts(sort=True, name="n").sort("n", "error", descending=[True, False]).head(REASONS).rows()


def interval(scores):
    """[low, high]: 95 % of the means of features drawn with replacement."""
    values, counts = np.unique(scores, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(scores), counts / len(scores), RESAMPLES)
    return np.quantile(drawn @ values / len(scores), (0.025, 0.975)).tolist()


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
