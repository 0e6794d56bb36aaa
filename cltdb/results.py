"""What an experiment found, in the few lines that end `cltdb run`. Reads the artifacts of the run itself, not the database, which also holds
what others brought; each line says of which artifact it speaks."""

from cltdb.engine.integrity import checked
from cltdb.engine.workspace import Workspace, read_json, read_parquet

SHOWN_GRAPHS = 8
NAMED = 8
"""Digits of an artifact's key that lines show."""


def headlines(made):
    """Lines of text on the artifacts of a run, `made`: {stage: directory}."""
    if "train" not in made:
        return []
    lines = [f"dictionary {read_json(checked(made['train'] / 'dictionary.json'))['dict_id']}"]
    parts = {"evaluate": _evaluation, "harvest": _dead, "explain": _explanations}
    for stage, told in parts.items():
        if stage in made:
            lines += [f"  {stage} {made[stage].name[:NAMED]}: {line}" for line in told(made[stage])]
    return [*lines, *(_graphs(made["attribute"], made["model"]) if {"attribute", "model"} <= made.keys() else ())]


def _table(directory, table):
    """A table that an artifact wrote, None where it has no rows."""
    import polars as pl

    paths = [checked(path) for path in sorted((directory / "tables" / table).glob("*.parquet"))]
    return pl.concat([read_parquet(path) for path in paths], how="vertical_relaxed") if paths else None


def _evaluation(directory):
    row = _pooled(directory)

    def said(form, *names):
        return form.format(**row) if all(name in row for name in names) else None

    beside = said(" ({top1_agreement_confident:.1%} where the model is confident)", "top1_agreement_confident") or ""
    agreement = "MLPs replaced: top-1 agreement {top1_agreement:.1%}" + beside + ", KL {kl_nats:.4f} nats"
    entropy = (
        "cross-entropy {ce_original:.4f}, replaced {ce_replacement:.4f}, zero-ablated {ce_zero:.2f}, mean-ablated {ce_mean:.2f}: "
        "{ce_recovered:.2%} recovered"
    )
    lines = [
        said("FVU {fvu:.4f} at L0 {l0:.2f} on held-out text", "fvu", "l0"),
        said(agreement, "top1_agreement", "kl_nats"),
        said(entropy, "ce_original", "ce_replacement", "ce_zero", "ce_mean", "ce_recovered"),
    ]
    return [line for line in lines if line]


def _dead(directory):
    features = _table(directory, "features")
    return (
        [f"{features['dead'].sum()} of {len(features)} features dead: silent in all text of harvest"]
        if features is not None
        else []
    )


def _explanations(directory):
    """How many features were explained, and a line per scorer: how many of the scored ones reach 0.8, beside the baselines' means."""
    summary = read_json(checked(directory / "summary.json"))
    status = ", ".join(f"{n} {name}" for name, n in summary["status"].items())
    chosen = f"{summary['n_chosen']} of {summary['n_live']} live features by {summary['model']}"
    lines = [f"{chosen}: {status}" if status else chosen]
    scores = {explainer: by for explainer, by in summary["scores"].items() if not explainer.startswith("baseline:")}
    for explainer, by_scorer in scores.items():
        for scorer, numbers in by_scorer.items():
            if numbers["n_scored"]:
                lines.append(
                    f"{scorer} of {explainer}: {numbers['n_good']} of {numbers['n_scored']} features scored at 0.8 or more, mean "
                    f"{numbers['mean']:.3f}; baselines: {_baselines(summary['scores'], scorer)}"
                )
    return lines


def _baselines(scores, scorer):
    """Their means, with the number of features where it is another than of all baselines."""
    found = {
        explainer.removeprefix("baseline:"): by[scorer]
        for explainer, by in scores.items()
        if explainer.startswith("baseline:") and by.get(scorer, {}).get("n_scored")
    }
    return ", ".join(f"{name} {numbers['mean']:.3f} of {numbers['n_scored']}" for name, numbers in found.items()) or "none"


def _graphs(directory, model_directory):
    """A line per graph of an artifact, with its likeliest logit."""
    graphs = _table(directory, "graphs")
    if graphs is None:
        return []
    logits = _table(directory, "nodes").filter(kind="logit").sort("node_id").unique("graph_id", keep="first")
    strings = _table(model_directory, "vocabulary").select("token", "string")
    top = logits.select("graph_id", "token", "probability").join(strings, on="token", how="left")
    lines = [f"  attribute {directory.name[:NAMED]}: {len(graphs)} graph{'s' * (len(graphs) > 1)}"]
    for graph in graphs.join(top, on="graph_id", how="left").sort("graph_id").head(SHOWN_GRAPHS).iter_rows(named=True):
        about = (
            f"{(graph['string'] or '').strip()!r} at {graph['probability']:.1%}"
            if graph["token"] is not None
            else graph["target"]
        )
        scores = f"replacement {graph['replacement_score']:.3f}, completeness {graph['completeness_score']:.3f}"
        lines.append(f"  graph {graph['graph_id']}: {about}; {scores}")
    if len(graphs) > SHOWN_GRAPHS:
        lines.append(f"  {len(graphs) - SHOWN_GRAPHS} more graphs: cltdb sql --query graph_list")
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
    pooled = (row for row in rows if all(row.get(name) is None for name in ("layer", "variant", "label")))
    return {row["name"]: row["value"] for row in pooled if row["value"] is not None}


def _training_seconds(project):
    """{train key: seconds of the run that finished it}, as recorded."""
    records = sorted(Workspace(project.workspace).run_records(), key=lambda record: record["started_at"])
    return {record["key"]: record["seconds"] for record in records if record["stage"] == "train" and record["seconds"]}
