"""Stage `groups`: what features labels such as languages share. Writes: tables `group_prompts` and `group_overlaps`, and a unit per prompt
that other artifacts use too."""

from cltdb.engine.closing import named, table
from cltdb.engine.section import Conflict
from cltdb.engine.stage import Stage, reads
from cltdb.engine.units import There, has_folder
from cltdb.engine.workspace import digest
from cltdb.errors import CltdbError
from cltdb.groups.prompts import parallel_prompts
from cltdb.groups.settings import TRACES, Groups
from cltdb.model.kinds import KINDS
from cltdb.model.source import language_model, sizes_and_tokens
from cltdb.train.trained import dict_id, dictionary_for

VERSION = 1


def run(job):
    from cltdb.groups.run import compare_groups

    lm = language_model(job)
    prompts = parallel_prompts(job.settings, job.project.root)
    compare_groups(
        job.settings,
        [(prompt, trace_key(job.experiment, prompt, job.input_keys)) for prompt in prompts],
        lm,
        dictionary_for(lm, job.inputs["train"]),
        directory=job.directory,
        units=job.units,
        names={"groups_id": f"{job.experiment.name}-groups-{job.key[:8]}", "dict_id": dict_id(job.inputs["train"])},
        seed=job.seed("groups"),
    )


def trace_key(experiment, prompt, input_keys):
    """The key of a prompt's trace; concept and label are none of its parts."""
    section, special = experiment.groups, experiment.activations.special_tokens_in_text
    return digest([VERSION, input_keys, special, section.max_features, prompt.text, prompt.target])


def there(experiment, project, input_keys):
    try:
        prompts = parallel_prompts(experiment.groups, project.root)
    except CltdbError:  # which `check` says
        return None
    n_there = sum(has_folder(project.workspace, TRACES, trace_key(experiment, prompt, input_keys)) for prompt in prompts)
    return There(f"{n_there} of {len(prompts)} prompts are there", n_there) if n_there else None


def identity(experiment, project):
    parts = {"seed": experiment.seed, "activations.special_tokens_in_text": experiment.activations.special_tokens_in_text}
    try:
        prompts = [prompt.model_dump() for prompt in parallel_prompts(experiment.groups, project.root)]
    except CltdbError:
        prompts = None
    return parts | {"prompts": digest(prompts)}


def fits(experiment):
    if not experiment.train.published and KINDS[experiment.train.kind].reconstructs:
        expected = "expected no groups with train.kind sae: it explains an activation and not how the MLP makes it"
        raise Conflict(f"{expected}, found some", "groups")


def check(experiment, project):
    parallel_prompts(experiment.groups, project.root)


def preflight(experiment, project):
    from cltdb.groups.traces import check_prompts

    check_prompts(sizes_and_tokens(experiment, project), parallel_prompts(experiment.groups, project.root))


def work(experiment, project):
    return len(parallel_prompts(experiment.groups, project.root)), "prompts"


def lines(made):
    """The layer in which labels share most beyond chance, of features at any position."""
    found = table(made["groups"], "group_overlaps")
    if found is None:
        return []
    labels = sorted({*found["label_a"].drop_nulls(), *found["label_b"].drop_nulls()})
    said = f"  {named(made['groups'])}: {', '.join(labels)}"
    rows = found.filter(keyed_by="free", weighting="none", null_kind="other_label").drop_nulls("corrected").to_dicts()
    if pooled := [row for row in rows if row["label_a"] is None]:
        best = max(pooled, key=lambda row: row["corrected"])
        interval = f"{best['corrected_ci_low']:.3f} to {best['corrected_ci_high']:.3f}"
        said += f"; overlap less chance is highest in layer {best['layer']}: {best['corrected']:.3f} (95 %: {interval})"
    return [said]


STAGE = Stage(
    "groups",
    version=VERSION,
    run=run,
    section=Groups,
    inputs=reads("model", "train"),
    optional=True,
    fits=fits,
    identity=identity,
    check=check,
    preflight=preflight,
    work=work,
    there=there,
    tables=("group_prompts", "group_overlaps"),
    lines=lines,
)
