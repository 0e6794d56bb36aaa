"""`cltdb explain`: explains and scores the features that an SQL condition chooses."""

import json

from cltdb import output
from cltdb.commands.common import Command, add_spec, load_spec, option_named, run_into_database
from cltdb.errors import CltdbError, shown

SHOWN, MOST = 20, 50_000
"""Explanations that are printed; features that may be chosen, which the spec then lists."""


def add_options(parser):
    add_spec(parser)
    parser.add_argument(
        "--where",
        metavar="SQL",
        help="a condition on columns of the view feature_cards, such as 'layer = 3 AND density > 0.01' or 'NOT dead AND text IS NULL'; "
        "default: the features that the spec chooses",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="at most so many features, the first in the order of explain.features.top_by"
    )
    parser.add_argument("--dry-run", action="store_true", help="say how many requests and dollars it would take, and ask nobody")


def explain_command(options):
    if options.limit is not None and options.limit < 1:
        raise CltdbError("--limit", found=str(options.limit), expected="1 or more", do="ask for at least one feature")
    loaded = load_spec(options)
    directories = harvested(loaded, options.spec)
    only = _chosen(loaded, directories, options.where) if options.where is not None else None
    if only or options.limit:
        features = ["sample=null"]
        features += [f"only={json.dumps(only)}"] if only else []
        features += [f"limit={options.limit}"] if options.limit else []
        with option_named({r"explain\.features\.limit\b": "--limit"}):
            loaded = load_spec(
                options, before=["explain.features.limit=null"], extra=[f"explain.features.{key}" for key in features]
            )
    if options.dry_run:
        output.say(_dry_run(loaded))
    else:
        output.say(*_told(run_into_database(loaded, "explain")))


def _chosen(loaded, directories, where):
    """[[layer, feature]] of the features that a condition chooses."""
    from cltdb.database.condition import features_where
    from cltdb.train.trained import dict_id

    chosen = features_where(loaded.project.database, dict_id(directories["train"]), where)
    _check(chosen)
    return [list(place) for place in chosen.select("layer", "feature").rows()]


def _dry_run(loaded):
    """What explaining would ask and cost, in a line."""
    from cltdb.explain.stage import estimated

    return estimated(job_of_explain(loaded))


def job_of_explain(loaded):
    """The `Job` of stage explain, which is not run."""
    from cltdb.engine.plan import plan
    from cltdb.engine.run import job_of
    from cltdb.engine.workspace import Workspace

    items = {item.stage: item for item in plan(loaded)}
    keys = {stage: item.key for stage, item in items.items()}
    return job_of(loaded, Workspace(loaded.project.workspace), items["explain"], keys)


def _check(chosen):
    """CltdbError where there is nothing to explain, a dead feature, or more than a spec can name."""
    silent = chosen.filter(chosen["silent"])
    if not len(chosen):
        found, do = "no feature", "choose others"
    elif len(silent):
        places = ", ".join(f"{layer}:{feature}" for layer, feature, _ in silent.head(3).rows())
        found, do = f"{len(silent):,} of {len(chosen):,} features dead, such as {places}", "add AND density > 0"
    elif len(chosen) > MOST:
        found, do = f"{len(chosen):,} features", "choose fewer, or raise explain.features.limit for cltdb run"
    else:
        return
    raise CltdbError("--where", found=found, expected=f"1 to {MOST:,} features of this spec's dictionary that fire", do=do)


def harvested(loaded, spec):
    """{stage: directory} of the finished harvest and of what it was made from, which are in the database then."""
    from cltdb.database.artifacts import bring_in
    from cltdb.engine.plan import plan
    from cltdb.engine.workspace import Workspace

    project, experiment = loaded.project, loaded.experiment
    planned = {item.stage: item for item in plan(loaded)}
    if planned["harvest"].action == "run":
        raise CltdbError(
            "cltdb explain",
            found=f"no finished harvest ({planned['harvest'].reason})",
            expected="one, in which the features of this spec's dictionary are",
            do=f"cltdb run {spec} --until harvest",
        )
    inputs = experiment.inputs("harvest") | {"harvest": "harvest"}
    directories = {name: Workspace(project.workspace).artifact(stage, planned[stage].key) for name, stage in inputs.items()}
    bring_in(project, *((directory.name, directory) for directory in directories.values()))
    return directories


def _told(directory):
    """What the explanations and scores in an artifact are, a line each, and how many there are of them."""
    import polars as pl

    from cltdb.engine.integrity import checked
    from cltdb.engine.workspace import read_json, read_parquet

    summary = read_json(checked(directory / "summary.json"))
    explanations, scores = (
        read_parquet(*sorted((directory / "tables" / table).glob("*.parquet"))).filter(
            ~pl.col("explainer").str.starts_with("baseline:")
        )
        for table in ("explanations", "scores")
    )
    key, several = ["layer", "feature", "side", "explainer"], explanations.select("side", "explainer").n_unique() > 1
    first = scores.group_by(key).agg(score=pl.col("score").first())
    for row in explanations.join(first, on=key, how="left").sort(key).head(SHOWN).to_dicts():
        score = "     " if row["score"] is None else f"{row['score']:5.3f}"
        text = shown(row["text"] or f"{row['status']}: {row['error']}", quoted=False)
        yield f"{row['layer']:>3}:{row['feature']:<6} {score}  {row['explainer'] + ': ' if several else ''}{text}"
    for explainer, sides in summary["explainers"].items():
        for side, told in sides.items():
            status = ", ".join(f"{n} {name}" for name, n in told["status"].items() if name != "ok")
            own = scores.filter(explainer=explainer, side=side).filter(pl.col("score").is_not_null())
            scored = ", ".join(f"{n} by {scorer}" for scorer, n in own.group_by("scorer", maintain_order=True).len().rows())
            yield (
                f"explained {told['status'].get('ok', 0)} of {summary['n_chosen']} features by {told['model'] or explainer}"
                f"{f' ({status})' if status else ''}; scored {scored or 'none'}"
            )
            for reason, n in told.get("unanswered", {}).get("reasons", [])[:1]:
                yield f"scores without all answers: {n}, the last reason most often: {reason}"


COMMAND = Command(
    "explain and score the features that an SQL condition chooses",
    "cltdb explain experiments/quickstart.yaml --where 'layer = 1 AND density > 0.01'",
    add_options,
    explain_command,
    tells=True,
)
