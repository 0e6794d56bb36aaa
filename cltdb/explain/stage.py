"""Stage `explain`: what features mean, in words, and how well the words predict them. Writes: tables `explanations` and `scores`,
`summary.json`, and units that other artifacts use too."""

from cltdb.engine.closing import named
from cltdb.engine.integrity import checked
from cltdb.engine.stage import Stage, reads
from cltdb.engine.units import EXPLANATIONS, SCORES, There, count, score_group
from cltdb.engine.workspace import digest, read_json
from cltdb.explain.settings import Explain
from cltdb.model.source import language_model
from cltdb.train.trained import dict_id

VERSION = 3


def run(job):
    from cltdb.explain.explain import explain

    explain(
        job.settings,
        directory=job.directory,
        units=job.units,
        base=_base(job.experiment, job.input_keys),
        harvest_directory=job.inputs["harvest"],
        dict_id=dict_id(job.inputs["train"]),
        vocabulary=language_model(job).token_strings(),
        seed=job.seed("explain"),
    )


def _base(experiment, input_keys):
    """What all units of explanations of a harvest by one model have in their keys."""
    return digest([experiment.explain.model, input_keys["harvest"], experiment.seed, VERSION])


def there(experiment, project, input_keys):
    base, section = _base(experiment, input_keys), experiment.explain
    n_there = {"explanations": count(project.workspace, EXPLANATIONS, base)}
    for scorer in section.scorers:
        n_there[f"scores by {scorer}"] = count(project.workspace, SCORES, score_group(base, scorer))
    text = ", ".join(f"{n:,} {what}" for what, n in n_there.items())
    return There(f"{text} of this harvest are there", None) if any(n_there.values()) else None


def check(experiment, project):
    if not experiment.explain.model.startswith("cltdb-rules/"):
        from cltdb.explain.calls import check_access

        check_access(experiment.explain.model)


def work(experiment, project):
    features = experiment.explain.features
    counts = [n for n in (features.limit, features.only and len(features.only)) if n]
    return (min(counts), "features") if counts else None


def lines(made):
    """How many features were explained, and a line per scorer: how many of the scored ones reach 0.8, beside the baselines' means."""
    summary = read_json(checked(made["explain"] / "summary.json"))
    status = ", ".join(f"{n} {name}" for name, n in summary["status"].items())
    chosen = f"{summary['n_chosen']} of {summary['n_live']} live features by {summary['model']}"
    found = [f"{chosen}: {status}" if status else chosen]
    scores = {explainer: by for explainer, by in summary["scores"].items() if not explainer.startswith("baseline:")}
    for explainer, by_scorer in scores.items():
        for scorer, numbers in by_scorer.items():
            if numbers["n_scored"]:
                found.append(
                    f"{scorer} of {explainer}: {numbers['n_good']} of {numbers['n_scored']} features scored at 0.8 or more, mean "
                    f"{numbers['mean']:.3f}; baselines: {_baselines(summary['scores'], scorer)}"
                )
    return [f"  {named(made['explain'])}: {line}" for line in found]


def _baselines(scores, scorer):
    """Their means, with the number of features where it is another than of all baselines."""
    found = {
        explainer.removeprefix("baseline:"): by[scorer]
        for explainer, by in scores.items()
        if explainer.startswith("baseline:") and by.get(scorer, {}).get("n_scored")
    }
    return ", ".join(f"{name} {numbers['mean']:.3f} of {numbers['n_scored']}" for name, numbers in found.items()) or "none"


STAGE = Stage(
    "explain",
    version=VERSION,
    run=run,
    section=Explain,
    inputs=reads("model", "train", "harvest"),
    identity=lambda experiment, project: {"seed": experiment.seed},
    check=check,
    work=work,
    there=there,
    tables=("explanations", "scores"),
    lines=lines,
)
