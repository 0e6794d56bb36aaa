"""Stage `groups`: what features labels such as languages share. Writes: tables `group_prompts`, `group_overlaps`, `label_features`,
`label_scores`, `substitutions`, `interventions` and `intervention_effects`, and a unit per prompt that other artifacts use too."""

from functools import partial

from cltdb.activations.reading import (
    check_text,
    own_text,
    packed,
    packed_own,
    pinned_text,
    preflight_text,
    reading_identity,
    text_of,
    trained_on,
)
from cltdb.activations.sizes import known_sizes
from cltdb.attribution.stage import WITH_GRAPHS, is_without_graphs
from cltdb.engine.closing import named, table
from cltdb.engine.section import Conflict
from cltdb.engine.stage import Stage, reads
from cltdb.engine.units import There, has_folder
from cltdb.engine.workspace import digest
from cltdb.errors import CltdbError
from cltdb.groups.prompts import labels_of, parallel_prompts
from cltdb.groups.settings import TRACES, Groups
from cltdb.model.kinds import KINDS
from cltdb.model.source import language_model, model_source, sizes_and_tokens
from cltdb.toyworld.facts import LANGUAGES
from cltdb.train.trained import dict_id, dictionary_for, measured_widely

VERSION = 8
VERSION_OF_TRACES = 4
"""Of prompts' graphs, which are found again where only what is made of them has changed."""


def run(job):
    from cltdb.groups.answers import check_prompts
    from cltdb.groups.run import Comparison
    from cltdb.groups.tables import write_rows
    from cltdb.groups.text import LabelledText

    lm, prompts = language_model(job), parallel_prompts(job.settings, job.project.root)
    check_prompts(lm, prompts)
    labelled = None
    if job.settings.label_features:  # what the text lacks is said before graphs are made
        labelled = LabelledText.of(_text(job, lm), labels_of(prompts), where=text_of(job.experiment, "groups")[1])
    names = {"groups_id": f"{job.experiment.name}-groups-{job.key[:8]}", "dict_id": dict_id(job.inputs["train"])}
    comparison = Comparison(
        job.settings,
        prompts,
        lm,
        dictionary_for(lm, job.inputs["train"]),
        job.units,
        key=job.key,
        key_of=partial(trace_key, job.experiment, job.input_keys),
        seed=job.seed,
        write=partial(write_rows, job.directory, names),
        groups_id=names["groups_id"],
    )
    comparison.overlaps()
    if labelled:
        comparison.label_features(labelled)


def _text(job, lm):
    """The sequences of text with labels."""
    if own_text(job.experiment, "groups"):
        return packed_own(job, lm, _n_tokens(job.experiment), without=trained_on(job, lm))
    return packed(job, lm, heldout_tokens=_n_tokens(job.experiment))[1]


def _n_tokens(experiment):
    return experiment.groups.tokens or experiment.activations.heldout_tokens


def trace_key(experiment, input_keys, text, target):
    """The key of a prompt's trace; concept and label are none of its parts."""
    section, special = experiment.groups, experiment.activations.special_tokens_in_text
    return digest([VERSION_OF_TRACES, input_keys, special, section.max_features, text, target])


def there(experiment, project, input_keys):
    try:
        prompts = parallel_prompts(experiment.groups, project.root)
    except CltdbError:  # which `check_files` says
        return None
    keys = [trace_key(experiment, input_keys, prompt.text, prompt.target) for prompt in prompts]
    n_there = sum(has_folder(project.workspace, TRACES, key) for key in keys)
    return There(f"{n_there} of {len(prompts)} prompts are there", n_there) if n_there else None


def identity(experiment, project):
    parts = {"seed": experiment.seed, "activations.special_tokens_in_text": experiment.activations.special_tokens_in_text}
    try:
        prompts = [prompt.model_dump() for prompt in parallel_prompts(experiment.groups, project.root)]
    except CltdbError:
        prompts = None
    if experiment.groups.label_features:
        parts |= (
            reading_identity(experiment, project, "groups")
            | {"groups.tokens": _n_tokens(experiment)}
            | measured_widely(experiment)
        )
    return parts | {"prompts": digest(prompts)}


def fits(experiment):
    if not experiment.train.published and KINDS[experiment.train.kind].reconstructs:
        do = "leave groups out, or train another kind"
        raise Conflict(f"expected {WITH_GRAPHS} beside groups, found {experiment.train.kind}", "groups", do=do)


def left_out(values, swept):
    """The section, where kinds are swept and that of the point has no graphs."""
    return [("groups",)] if is_without_graphs(values, swept) else []


def check_files(experiment, project):
    prompts, section = parallel_prompts(experiment.groups, project.root), experiment.groups
    if section.substitute and (sizes := known_sizes(model_source(experiment.model.id, project.root))):
        _check_layers(section.substitute, sizes[0])
    if not section.label_features:
        return
    check_text(experiment, project, "groups")
    _check_labels(experiment, labels_of(prompts))
    if prompts[0].target is None:
        expected = "a target in each, the answer in its label"
        raise CltdbError("groups.label_features", found="prompts without targets", expected=expected, do="add them")
    heldout = experiment.activations.heldout_tokens
    if section.tokens and section.tokens > heldout and not own_text(experiment, "groups"):
        expected = f"at most the {heldout:,} of activations.heldout_tokens"
        raise CltdbError("groups.tokens", found=f"{section.tokens:,}", expected=expected, do="lower it, or hold more text out")


def _check_labels(experiment, labels):
    """CltdbError where the text cannot have a label of the prompts; what is in a label_column is known when it is read."""
    sources, where = text_of(experiment, "groups")
    named = {source.label for source in sources} | (
        set(LANGUAGES) if any(source.toyworld and not source.label for source in sources) else set()
    )
    if missing := [] if any(source.label_column for source in sources) else [label for label in labels if label not in named]:
        raise CltdbError(
            where,
            found=f"no source of label {missing[0]}",
            expected=f"text of each label of the prompts, {', '.join(labels)}, for groups.label_features",
            do="give its sources a label or label_column, or groups.text of its own",
        )


def _check_layers(substitute, n_layers):
    for name in ("first_layer", "last_layer"):
        layer = getattr(substitute, name)
        if layer is not None and layer >= n_layers:
            expected = f"a layer of the model, at most {n_layers - 1}"
            raise CltdbError(f"groups.substitute.{name}", found=str(layer), expected=expected, do="lower it")


def preflight(experiment, project):
    from cltdb.groups.answers import check_answers, check_prompts

    lm, substitute = sizes_and_tokens(experiment, project), experiment.groups.substitute
    prompts = parallel_prompts(experiment.groups, project.root)
    check_prompts(lm, prompts)
    if substitute:
        _check_layers(substitute, lm.n_layers)
    if experiment.groups.label_features:
        check_answers(lm, prompts)
        preflight_text(experiment, project, "groups")


def work(experiment, project):
    return len(parallel_prompts(experiment.groups, project.root)), "prompts"


def lines(made):
    """The layer in which labels share most beyond chance, of features at any position; how many label features and substitutions there are."""
    found, prompts = (table(made["groups"], name) for name in ("group_overlaps", "group_prompts"))
    if found is None:
        return []
    labels = sorted(prompts["label"].unique())
    said = [f"  {named(made['groups'])}: {', '.join(labels)}"]
    rows = found.filter(keyed_by="free", weighting="none", null_kind="other_label").drop_nulls("corrected").to_dicts()
    if pooled := [row for row in rows if row["label_a"] is None]:
        best = max(pooled, key=lambda row: row["corrected"])
        interval = f"{best['corrected_ci_low']:.3f} to {best['corrected_ci_high']:.3f}"
        said[0] += f"; overlap less chance is highest in layer {best['layer']}: {best['corrected']:.3f} (95 %: {interval})"
    if (features := table(made["groups"], "label_features")) is not None:
        said.append("  label features: " + ", ".join(f"{label} {features.filter(label=label).height}" for label in labels))
    if (tried := table(made["groups"], "substitutions")) is not None:
        measured = tried.filter(part="test")
        right = measured.filter(control="none")["rate_right"]
        said.append(f"  substitutions: {len(right)} of {len(labels) * (len(labels) - 1)} pairs of labels")
        if len(right):
            by_chance = measured.filter(control="random")["rate_right"].max()
            said[-1] += f"; right answers {right.min():.2f} to {right.max():.2f}, with random features at most {by_chance:.2f}"
    return said


STAGE = Stage(
    "groups",
    version=VERSION,
    run=run,
    section=Groups,
    inputs=reads("model", "train"),
    optional=True,
    fits=fits,
    left_out=left_out,
    identity=identity,
    pinned=lambda experiment, project: pinned_text(experiment, project, "groups"),
    check_files=check_files,
    preflight=preflight,
    work=work,
    there=there,
    tables=(
        "group_prompts",
        "group_overlaps",
        "label_features",
        "label_scores",
        "substitutions",
        "interventions",
        "intervention_effects",
    ),
    lines=lines,
)
