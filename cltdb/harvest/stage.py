"""Stage `harvest`: where features fire. Writes: tables `features`, `windows`, `harvested_text`, `feature_edges`, `feature_labels`, and the windows that
explanations are made and scored from."""

from cltdb.activations.reading import (
    check_text,
    kept_apart,
    own_text,
    packed,
    packed_own,
    pinned_text,
    preflight_text,
    reading_identity,
)
from cltdb.engine.closing import named, table
from cltdb.engine.section import Conflict
from cltdb.engine.stage import Stage, reads
from cltdb.harvest.settings import Harvest
from cltdb.model.source import language_model, sizes_and_tokens
from cltdb.train.trained import dict_id, dictionary_for, measured_widely


def run(job):
    from cltdb.harvest.harvest import harvest

    settings, lm = job.settings, language_model(job)
    sequences = text_read(job, lm)
    named_so = dict_id(job.inputs["train"])
    dictionary = dictionary_for(lm, job.inputs["train"])
    seed = job.seed("harvest")
    harvest(settings, lm, dictionary, sequences, directory=job.directory, dict_id=named_so, seed=seed, share=job.share)


def text_read(job, lm, *, note=True):
    """The sequences that a job of this stage reads; note: whether its artifact keeps which rows were left out."""
    if own_text(job.experiment, "harvest"):
        return packed_own(job, lm, job.settings.tokens, note=note)
    return packed(job, lm, train_tokens=job.settings.tokens, note=note)[0]


def identity(experiment, project):
    return reading_identity(experiment, project, "harvest") | kept_apart(experiment, "harvest") | measured_widely(experiment)


def fits(experiment):
    most = max(experiment.activations.context, Harvest().window)  # the default is cut to shorter sequences
    if experiment.harvest.window > most:
        expected = f"expected at most {most}, as a window never leaves its sequence (activations.context)"
        raise Conflict(f"{expected}, found {experiment.harvest.window}", "harvest", "window")


def preflight(experiment, project):
    preflight_text(experiment, project, "harvest")
    if experiment.harvest.lens_tokens:
        from cltdb.harvest.lens import chosen_tokens

        chosen_tokens(sizes_and_tokens(experiment, project), experiment.harvest.lens_tokens, where="harvest.lens_tokens")


def lines(made):
    features = table(made["harvest"], "features")
    if features is None:
        return []
    found = f"{features['dead'].sum()} of {len(features)} features dead: silent in all text of harvest"
    return [f"  {named(made['harvest'])}: {found}"]


STAGE = Stage(
    "harvest",
    version=5,
    run=run,
    section=Harvest,
    inputs=reads("model", "train"),
    fits=fits,
    identity=identity,
    pinned=lambda experiment, project: pinned_text(experiment, project, "harvest"),
    check_files=lambda experiment, project: check_text(experiment, project, "harvest"),
    preflight=preflight,
    work=lambda experiment, project: (experiment.harvest.tokens, "tokens"),
    collect=run,
    tables=(
        *("features", "harvested_text", "windows", "feature_edges", "feature_neighbours"),
        *("feature_labels", "input_edges", "pullback_overlaps"),
    ),
    lines=lines,
)
