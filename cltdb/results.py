"""What an experiment found, in the few lines that end `cltdb run`. Reads the database; of a sweep, the artifacts."""

from cltdb.integrity import checked
from cltdb.workspace import Workspace

SHOWN_GRAPHS = 8


def headlines(database, dict_id):
    """Lines of text: evaluation, explanations and graphs of one dictionary, as far as the database (`cltdb.open`) has them."""
    found = database.query("page_dictionaries").filter(dict_id=dict_id).to_dicts()
    if not found:
        return []
    lines = [
        f"dictionary {dict_id}",
        *_evaluation(found[0]),
        *_dead(database, dict_id),
        *_explanations(database.query("explanation_scores", dict_id=dict_id)),
    ]
    graphs = database.query("graph_list", dict_id=dict_id)
    for graph in graphs.head(SHOWN_GRAPHS).iter_rows(named=True):
        if graph["replacement_score"] is None or graph["top_logit"] is None:  # of another tool, which left them out
            lines.append(f"  graph {graph['graph_id']}: imported")
            continue
        scores = f"replacement {graph['replacement_score']:.3f}, completeness {graph['completeness_score']:.3f}"
        lines.append(f"  graph {graph['graph_id']}: {graph['top_logit'].strip()!r} at {graph['top_probability']:.1%}; {scores}")
    if len(graphs) > SHOWN_GRAPHS:
        lines.append(f"  {len(graphs) - SHOWN_GRAPHS} more graphs: cltdb sql --query graph_list")
    return lines


def _evaluation(row):
    if row["fvu"] is None:
        return []
    confident = row["top1_agreement_confident"]
    beside = "" if confident is None else f" ({confident:.1%} where the model is confident)"
    return [
        f"  held-out text: FVU {row['fvu']:.4f} at L0 {row['l0']:.2f}",
        f"  MLPs replaced: top-1 agreement {row['top1_agreement']:.1%}{beside}, KL {row['kl_nats']:.4f} nats",
        f"  cross-entropy {row['ce_original']:.4f}, replaced {row['ce_replacement']:.4f}, zero-ablated {row['ce_zero']:.2f},"
        f" mean-ablated {row['ce_mean']:.2f}: {row['ce_recovered']:.2%} recovered",
    ]


def _dead(database, dict_id):
    row = database.sql(
        "SELECT count(*) AS n, count(*) FILTER (dead) AS n_dead FROM features WHERE dict_id = $dict_id", {"dict_id": dict_id}
    )
    n, n_dead = row.row(0)
    return [f"  {n_dead} of {n} features dead: silent in all text of harvest"] if n else []


def _explanations(scores):
    """One line per scorer: how many features reach 0.8, beside the baselines' means."""
    import polars as pl

    is_baseline, lines = pl.col("explainer").str.starts_with("baseline:"), []
    for row in scores.filter(~is_baseline, pl.col("n_scored") > 0).iter_rows(named=True):
        baselines = scores.filter(is_baseline, pl.col("n_scored") > 0, scorer=row["scorer"]).iter_rows(named=True)
        beside = ", ".join(f"{other['explainer'].removeprefix('baseline:')} {other['mean_score']:.3f}" for other in baselines)
        lines.append(
            f"  {row['scorer']} of {row['explainer']}: {row['n_good']} of {row['n_explanations']} features at 0.8 or more,"
            f" mean {row['mean_score']:.3f}; baselines: {beside}"
        )
    return lines


# The points of a sweep side by side


COMPARED = {"FVU": ("fvu", ".4f"), "L0": ("l0", ".2f"), "dead": ("dead_frac", ".2%"), "CE recovered": ("ce_recovered", ".2%")}


def comparison(results):
    """Lines of a table, a row per point of a sweep (`runner.PointResult`s), in order: pooled evaluation, seconds of training."""
    seconds = _training_seconds(results[0].loaded.project)
    rows = [("point", *COMPARED, "seconds")]
    for result in results:
        made = {stage.stage: stage.directory for stage in result.stages}
        values = _pooled(made["evaluate"]) if "evaluate" in made else {}
        cells = [format(values[name], form) if name in values else "" for name, form in COMPARED.values()]
        took = seconds.get(made["train"].name) if "train" in made else None
        rows.append((result.loaded.experiment.name, *cells, "failed" if result.error else "" if took is None else f"{took:.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _pooled(directory):
    """{name: value} of the pooled rows that an evaluation wrote."""
    import pyarrow.parquet as pq

    rows = [
        row for path in sorted(directory.glob("tables/metrics/*.parquet")) for row in pq.read_table(checked(path)).to_pylist()
    ]
    return {row["name"]: row["value"] for row in rows if row["layer"] is None and row["value"] is not None}


def _training_seconds(project):
    """{train key: seconds of the run that finished it}, as recorded."""
    records = sorted(Workspace(project.workspace).run_records(), key=lambda record: record["started_at"])
    return {record["key"]: record["seconds"] for record in records if record["stage"] == "train" and record["seconds"]}
