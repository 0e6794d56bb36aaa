"""Stage `explain`: what features mean, in words, and how well the words predict them. Writes: tables `explanations`, `scores` and `requests`,
`summary.json`, and units that other artifacts use too."""

import logging
from contextlib import suppress

from cltdb.engine.closing import named
from cltdb.engine.integrity import checked
from cltdb.engine.stage import ALONE, Stage, reads
from cltdb.engine.units import EXPLANATIONS, SCORES, There, count
from cltdb.engine.workspace import read_json, read_parquet
from cltdb.errors import CltdbError
from cltdb.explain.keys import VERSION, base_of, group
from cltdb.explain.settings import ASKING, RULES_MODEL, Explain
from cltdb.model.source import language_model
from cltdb.train.trained import dict_id, dictionary_for

logger = logging.getLogger(__name__)


def run(job):
    from cltdb.explain.explain import explain

    subjects = _subjects(job)
    labels, baselines = _labels(job, subjects), _baselines_of(job, subjects)
    if job.settings.model != RULES_MODEL:
        logger.info("explain: %s", _estimated(job, subjects, labels))
    if "intervention" in job.settings.scorers:
        subjects.raised = _interventions(job, subjects).raised
    made = dict(directory=job.directory, units=job.units, dict_id=dict_id(job.inputs["train"]), share=job.share)
    explain(job.settings, subjects, labels=labels, baselines=baselines, **made)
    if job.share == ALONE:
        _summarise(job, subjects)


def estimated(job):
    """What a run would ask language models and at what price, in a line; asks nobody."""
    if job.settings.model == RULES_MODEL:
        return "no language model is asked; nothing to pay"
    subjects = _subjects(job)
    return _estimated(job, subjects, _labels(job, subjects))


def judged_again(job, layer, feature, explanations, scores):
    """Which windows the judges of a feature's explanations judged right (`judged.judged`); asks nobody."""
    from cltdb.explain.judged import judged

    return judged(job.settings, _subjects(job), layer, feature, explanations, scores, units=job.units)


def _estimated(job, subjects, labels):
    from cltdb.explain.estimate import planned, told

    return told(planned(job.settings, subjects, units=job.units, labels=labels))


def collect(job):
    _summarise(job, _subjects(job))


def _labels(job, subjects):
    """The texts of each of `explain.labels`, of features that the dictionary has."""
    from cltdb.explain.labels.labels import labels_of

    return [labels_of(section, job.project.root, subjects.windows.features) for section in job.settings.labels]


def _subjects(job):
    from cltdb.explain.subjects import Subjects

    base = base_of(job.input_keys["harvest"], job.experiment.seed)
    return Subjects(job.inputs["harvest"], vocabulary=_vocabulary(job), seed=job.seed("explain"), base=base)


def _interventions(job, subjects):
    from cltdb.explain.interventions import Interventions

    def load():
        lm = language_model(job)
        return lm, dictionary_for(lm, job.inputs["train"])

    return Interventions(subjects.windows, load, units=job.units, base=subjects.base)


def _vocabulary(job):
    """String per token id, as stage model wrote them: loading the model takes seconds."""
    written = job.inputs["model"] / "tables/vocabulary/vocabulary.parquet"
    if written.is_file():
        return read_parquet(checked(written)).sort("token")["string"].to_list()
    return language_model(job).token_strings()


def _baselines_of(job, subjects):
    """The `Baseline`s that features are compared with; by one process of several."""
    from cltdb.explain.baselines.harvested import baseline

    return [baseline(job, kind, subjects.vocabulary) for kind in job.settings.dictionaries()] if job.share.rank == 0 else []


def _summarise(job, subjects):
    from cltdb.explain.summary import summarise

    summarise(job.directory, job.settings, n_live=len(subjects.windows.live()))


def there(experiment, project, input_keys):
    base, section = base_of(input_keys["harvest"], experiment.seed), experiment.explain
    free = [name for name in section.who_explains() if name not in ASKING]
    groups = {"explanations": [(EXPLANATIONS, group(base, name)) for name in free]}
    groups |= {f"scores by {scorer}": [(SCORES, group(base, name, scorer)) for name in free] for scorer in section.scorers}
    n_there = {what: sum(count(project.workspace, *one) for one in several) for what, several in groups.items()}
    text = ", ".join(f"{n:,} {what}" for what, n in n_there.items())
    return There(f"{text} of this harvest are there", None) if any(n_there.values()) else None


def check_files(experiment, project):
    if experiment.explain.labels:
        from cltdb.explain.labels.labels import check_labels

        check_labels(experiment.explain.labels, project.root)


def check(experiment, project):
    if experiment.explain.model != RULES_MODEL:
        from cltdb.explain.requests.access import access

        access(experiment.explain)


def identity(experiment, project):
    """Beside the seed the content of files of labels, and the versions of the prompts that a language model is asked with."""
    section, found = experiment.explain, {"seed": experiment.seed}
    if section.labels:
        from cltdb.explain.labels.labels import labels_content

        found["labels"] = labels_content(section.labels, project.root)
    if section.model != RULES_MODEL:
        from cltdb.explain.prompts import versions

        asked = {
            *section.who_explains(),
            *section.scorers,
            *(["pick_tokens"] if {"pick_one", "intervention"} & {*section.scorers} else []),
        }
        found["prompts"] = {name: version for name, version in versions().items() if name in asked}
    return found


def wants_more(experiment, directory):
    """Why an artifact that a budget ended is continued: the budget is larger now. A damaged summary is said where it is used."""
    ended = {}
    with suppress(CltdbError):
        ended = read_json(directory / "summary.json").get("ended", {})
    for name, then in ended.items():
        now = getattr(experiment.explain, name)
        if then is not None and (now is None or now > then):
            return f"was ended by {name} {then:g}, now {'none' if now is None else f'{now:g}'}"
    return None


def work(experiment, project):
    features = experiment.explain.features
    counts = [n for n in (features.limit, features.sample, features.only and len(features.only)) if n]
    return (min(counts), "features") if counts else None


def lines(made):
    """Per explainer how many features it explained and why others failed, per scorer how many of the scored ones reach 0.8, beside the
    baselines' means, and what the requests cost."""
    from cltdb.explain.summary import said_interval

    summary = read_json(checked(made["explain"] / "summary.json"))
    found, scores = [], summary["scores"]
    for explainer, sides in summary["explainers"].items():
        for side, told in sides.items():
            by = f"{explainer} ({told['model']})" if told["model"] and explainer != "rules" else explainer
            status = ", ".join(f"{n} {name}" for name, n in told["status"].items())
            n, n_live = sum(told["status"].values()), summary["n_live"]
            features = (
                f"{n} of {n_live} live features" if n <= n_live else f"{n} features, live or not,"
            )  # of labels made elsewhere
            found.append(f"{features} by {by}, side {side}: {status}")
            found += [f"failed {n} times: {reason}" for reason, n in told["reasons"]]
            found += _unscored(explainer, told)
    if not summary["explainers"]:
        found.append(_unexplained(summary["n_live"]))
    for explainer, by_scorer in scores.items():
        for scorer, numbers in by_scorer.items():
            if not explainer.startswith("baseline:") and numbers["n_scored"]:
                found.append(
                    f"{scorer} of {explainer}: {numbers['n_good']} of {numbers['n_scored']} features scored at 0.8 or more, mean "
                    f"{numbers['mean']:.3f}{said_interval(numbers)}; baselines: {_baselines(scores, scorer)}"
                )
    found += _told_requests(summary["requests"])
    return [f"  {named(made['explain'])}: {line}" for line in found]


def _unexplained(n_live):
    from cltdb.explain.examples import LIVE_CONTEXTS, LIVE_DOCUMENTS

    if n_live:
        return "none of the chosen features has an explanation"
    return (
        f"no feature is live, so none is explained: that takes {LIVE_CONTEXTS} contexts from {LIVE_DOCUMENTS} documents, and harvest keeps at most"
        " top + per_quantile * n_quantiles of a feature (cltdb sql --query too_few_windows)"
    )


def _unscored(explainer, told):
    """Whether an explainer has no score at all, and questions about its texts that got no usable answer, with the commonest reason."""
    found, unanswered = [], told.get("unanswered")  # earlier versions did not count
    if unanswered and unanswered["n"]:
        reasons = "".join(f": {reason}" for reason, n in unanswered["reasons"][:1])
        found.append(f"{unanswered['n']:,} questions about texts of {explainer} have no usable answer{reasons}")
    elif unanswered and not told["n_scored"] and told["status"].get("ok"):
        found.append(f"none of explain.scorers scores what {explainer} says")
    return found


def _baselines(scores, scorer):
    """Their means, with the number of features where it is another than of all baselines."""
    found = {
        explainer.removeprefix("baseline:"): by[scorer]
        for explainer, by in scores.items()
        if explainer.startswith("baseline:") and by.get(scorer, {}).get("n_scored")
    }
    return ", ".join(f"{name} {numbers['mean']:.3f} of {numbers['n_scored']}" for name, numbers in found.items()) or "none"


def _told_requests(requests):
    """What was asked and what it cost, in a line; nothing where nobody was asked."""
    if requests is None:
        return []
    status = ", ".join(f"{n:,} {name}" for name, n in requests["status"].items()) or "none"
    unpriced = f" and that of {requests['n_unpriced']:,}, unknown" if requests["n_unpriced"] else ""
    reused = (
        f"; {requests['n_reused']:,} were there, which had cost ${requests['reused_usd']:.4f}" if requests["n_reused"] else ""
    )
    return [f"requests: {status}; new cost ${requests['new_usd']:.4f}{unpriced}{reused}"]


STAGE = Stage(
    "explain",
    version=VERSION,
    run=run,
    section=Explain,
    inputs=reads("model", "train", "harvest"),
    identity=identity,
    check_files=check_files,
    check=check,
    work=work,
    wants_more=wants_more,
    there=there,
    collect=collect,
    tables=("explanations", "scores", "requests"),
    lines=lines,
)
