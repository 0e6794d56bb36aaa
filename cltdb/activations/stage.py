"""Stage `activations`: the activations of the text, as a cache of shards or, in mode stream, as a description of what training will
see. Writes: the shards and `cache.json`."""

import shutil

from cltdb.activations.reading import check_text, packed, pinned_text, preflight_text, text_content
from cltdb.activations.settings import Activations
from cltdb.engine.stage import Stage, reads
from cltdb.engine.workspace import read_json
from cltdb.errors import CltdbError
from cltdb.model.source import language_model, model_source


def run(job):
    from cltdb.activations.cache import describe_stream, refer_to, write_cache
    from cltdb.activations.loader import SUMMARY_FILE
    from cltdb.activations.ordinary import say_excluded

    settings = job.settings
    if (job.directory / SUMMARY_FILE).is_file():  # which the processes of a launch have written together
        return
    if settings.mode == "stream" and job.share.rank > 0:
        return
    lm = language_model(job)
    found = packed(job, lm, train_tokens=settings.train_tokens, heldout_tokens=settings.heldout_tokens)
    parts = dict(zip(("train", "heldout"), found, strict=True))
    for part, sequences in parts.items() if job.share.rank == 0 else ():
        say_excluded(lm, sequences, part=part)
    if settings.mode == "stream":
        describe_stream(lm, parts, directory=job.directory, batch_seqs=settings.batch_seqs)
        return
    place = _shards_place(settings, job)
    complete = write_cache(settings, lm, parts, directory=place, share=job.share)
    if complete and place != job.directory:
        refer_to(place, directory=job.directory)


def _shards_place(settings, job):
    """Where the shards go: the artifact itself, or a folder of its own under activations.storage."""
    if settings.storage is None:
        return job.directory
    if "://" in settings.storage:
        return f"{settings.storage.rstrip('/')}/{job.key}"
    return job.project.root / settings.storage / job.key


def identity(experiment, project):
    return {"files": text_content(experiment.activations.text, project), "seed": experiment.seed}


def idle(experiment):
    return "not needed: the dictionary of train.from is trained already" if experiment.train.published else ""


def check_files(experiment, project):
    check_text(experiment, project, "activations")


def check(experiment, project):
    """Refuses a cache that does not fit on the disk and shuffle pools that do not fit in memory; where the model's sizes are not on
    this machine yet, says nothing."""
    from cltdb.activations.sizes import bytes_per_token, check_memory, known_sizes

    section = experiment.activations
    sizes = known_sizes(model_source(experiment.model.id, project.root))
    if sizes is None:
        return
    codec = section.codec if section.mode == "cache" else "bfloat16" if experiment.model.dtype == "bfloat16" else "float32"
    check_memory(
        section.loader,
        sizes=sizes,
        codec=codec,
        context=section.context,
        train_tokens=section.train_tokens,
        batch_tokens=experiment.train.batch_tokens,
    )
    if section.mode == "stream" or section.storage is not None:
        return
    wanted = (section.train_tokens + section.heldout_tokens) * bytes_per_token(*sizes, section.codec)
    existing = _existing_folder(project)
    begun = sum(path.stat().st_size for path in project.workspace.glob("activations/*.partial/*"))
    free = shutil.disk_usage(existing).free + begun
    if wanted > free:
        raise CltdbError(
            "activations",
            found=f"a cache of {wanted / 1e6:,.0f} MB to write",
            expected=f"at most the {free / 1e6:,.0f} MB free at {existing}",
            do="lower activations.train_tokens, choose codec int8 or int4 or mode stream, or move `workspace` in cltdb.yaml to a"
            " larger disk",
        )


def _existing_folder(project):
    """The folder on the workspace's disk that is there already."""
    return next(folder for folder in (project.workspace, *project.workspace.parents) if folder.exists())


def preflight(experiment, project):
    preflight_text(experiment, project, "activations")


def estimate(experiment, project, *, measure):
    """The `activations.estimate.Estimate`, or None where the model is not on this machine. measure: with the times of recomputing and
    reading back, for which the model is loaded."""
    from cltdb.activations.estimate import estimate

    source = model_source(experiment.model.id, project.root)
    return estimate(experiment.activations, experiment.model, source=source, folder=_existing_folder(project), measure=measure)


def work(experiment, project):
    section = experiment.activations
    return (section.train_tokens + section.heldout_tokens, "tokens") if section.mode == "cache" else None


def known_hashes(directory):
    """{name: sha256} of a cache's shards in the artifact itself, which their reader checks block by block."""
    summary = read_json(directory / "cache.json") if (directory / "cache.json").is_file() else {}
    return {} if "location" in summary else {shard["file"]: shard["sha256"] for shard in summary.get("shards", ())}


def faults(directory):
    from cltdb.activations.storage import damaged_shards

    return damaged_shards(directory)


STAGE = Stage(
    "activations",
    version=2,
    run=run,
    section=Activations,
    inputs=reads("model"),
    idle=idle,
    identity=identity,
    pinned=lambda experiment, project: pinned_text(experiment, project, "activations"),
    check_files=check_files,
    check=check,
    preflight=preflight,
    work=work,
    estimate=estimate,
    collect=run,
    known_hashes=known_hashes,
    faults=faults,
)
