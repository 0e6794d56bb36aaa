"""Runs an experiment: what is missing, in order; failures, resume, and the points of a sweep one after the other."""

import logging
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cltdb.devices import present_device
from cltdb.engine import integrity, revisions, units
from cltdb.engine.config import Loaded
from cltdb.engine.launch import run_stage
from cltdb.engine.plan import check, of_point, plan, preflight, work
from cltdb.engine.records import (
    but_not_in_the_way,
    experiment_record,
    known_as,
    link_cached,
    made_by,
    mark_killed,
    new_record,
)
from cltdb.engine.stage import Job
from cltdb.engine.workspace import Workspace, explain_full_disk
from cltdb.errors import CltdbError
from cltdb.log import reported
from cltdb.memory import keep_freed_memory, ran_out

logger = logging.getLogger(__name__)


class StageResult(NamedTuple):
    """One line of a run's closing table; directory: None of a stage that the experiment has no use for."""

    stage: str
    action: str
    seconds: float
    directory: Path


class PointResult(NamedTuple):
    """What became of a point of a sweep: its finished stages, and why it failed, if it did."""

    loaded: Loaded
    stages: list
    error: str | None


@revisions.asked_once()
def run_points(points, *, only=None, until=None, force=()):
    """Runs the points of a sweep one after the other; returns a `PointResult` for each.

    What can be known to fail is an error before the first; a point that fails later is recorded as failed, and the others run.
    """
    records = Workspace(points[0].project.workspace).run_records()
    for loaded in points:
        chosen = _chosen(loaded, only=only, until=until, force=force)
        planned = [item for item in plan(loaded, force=force, records=records) if item.stage in chosen]
        with of_point(loaded):
            check(loaded, planned)
            preflight(loaded, planned)
    results, made = [], set()
    for number, loaded in enumerate(points, start=1):
        logger.info("%s (point %d of %d)", loaded.experiment.name, number, len(points))
        try:
            results.append(PointResult(loaded, run(loaded, only=only, until=until, force=force, made=made), None))
        except (CltdbError, RuntimeError, MemoryError) as error:  # torch says out of memory as a RuntimeError
            reason = str(error) if isinstance(error, CltdbError) else _unforeseen(error)
            logger.error("%s failed: %s", loaded.experiment.name, reason, exc_info=logger.isEnabledFor(logging.DEBUG))
            results.append(PointResult(loaded, _finished(loaded), reason))
    return results


def _finished(loaded):
    workspace = Workspace(loaded.project.workspace)
    return [
        StageResult(item.stage, item.action, 0.0, workspace.artifact(item.stage, item.key))
        for item in plan(loaded)
        if item.action == "cached" and item.key
    ]


def _unforeseen(error):
    if out := ran_out(error, "cltdb run"):
        return str(out)
    detail = " ".join(str(error).split())[:300]
    return (
        f"{type(error).__name__}: found {detail or 'no more words'}; expected no such failure; do this: run this point alone "
        "with --point and --debug"
    )


def _chosen(loaded, *, only, until, force, wanted=None):
    """Names of the stages that are asked for; CltdbError where an option names one that the experiment has not."""
    names = list(loaded.experiment.present)
    for option, name in (("--only", only), ("--until", until), *(("--force", name) for name in force)):
        if name is not None and name not in names:
            raise CltdbError(
                option,
                found=f"{name}, of which {loaded.experiment.name} has no section",
                expected=f"one of {', '.join(names)}",
                do=f"write a section {name} in the spec, or name another stage",
            )
    return {only} if only else set(names[: names.index(until) + 1]) if until else wanted or set(names)


@revisions.asked_once()
def run(loaded, *, only=None, until=None, force=(), wanted=None, made=None):
    """Runs what is missing, in order; returns a `StageResult` per stage considered. `wanted`: just these stages, whose inputs must be
    among them. `made`: a set of keys that are not forced again, to which those made now are added."""
    keep_freed_memory()
    chosen = _chosen(loaded, only=only, until=until, force=force, wanted=wanted)
    awaited = _awaited(loaded, chosen, only)
    loaded = loaded._replace(experiment=loaded.experiment.without_references(awaited))
    experiment, project = loaded.experiment, loaded.project
    workspace, gathering = Workspace(project.workspace), experiment.gathering
    if workspace.is_read_only():
        return _read_only(workspace, [item for item in plan(loaded, force=force) if item.stage in chosen])
    workspace.root.mkdir(parents=True, exist_ok=True)
    mark_killed(workspace)
    workspace.save_experiment(experiment.name, loaded.spec_hash, experiment_record(loaded))
    made = set() if made is None else made
    planned = [item._replace(reason=awaited.get(item.stage, item.reason)) for item in plan(loaded, force=force, made=made)]
    check(loaded, [item for item in planned if item.stage in chosen])
    preflight(loaded, [item for item in planned if item.stage in chosen])
    if any(experiment.stages[name].gathers for name in chosen):
        gathering.restore(project)
    keys = {item.stage: item.key for item in planned}
    results, unloaded = [], set()
    try:
        for item in planned:
            if item.stage in chosen:
                results.append(_run_stage(loaded, workspace, item, keys, unloaded))
                made.add(item.key)
        if unloaded and not any(experiment.stages[name].gathers for name in chosen):  # else it has loaded them
            gathering.bring_in(project, *((one.directory.name, one.directory) for one in results if one.stage in unloaded))
    except BaseException:
        with but_not_in_the_way("the run's records are not in the database yet"):
            gathering.publish(project)
        raise
    gathering.publish(project)
    return results


def _read_only(workspace, planned):
    """What a run returns that finds everything made, and nothing of which it can record."""
    if absent := [item.stage for item in planned if item.key and item.action != "cached"]:
        raise CltdbError(
            str(workspace.root),
            found=f"a folder one cannot write to, without stage {absent[0]} of this spec",
            expected="write permission to run it",
            do="run as the owner of the folder, or set `workspace: …` in cltdb.yaml to another one",
        )
    return [_cached(workspace, item) for item in planned]


def _cached(workspace, item):
    return StageResult(item.stage, "cached", 0.0, workspace.artifact(item.stage, item.key) if item.key else None)


def _awaited(loaded, chosen, only):
    """{stage: why} of those that read what another point of the sweep has not made. The run goes on without them, so that all else is kept; the
    stage `only` itself fails."""
    present = loaded.experiment.present
    wanted = present if only and present[only].gathers else chosen - {only}
    stages = {name: stage for name, stage in present.items() if name in wanted}
    found = {name: missing for name, stage in stages.items() if (missing := stage.awaits(loaded.experiment, loaded.project))}
    for name, missing in found.items():
        text = "%s goes without stage %s: found %s; run that point, then this one again"
        logger.warning(text, loaded.experiment.name, name, missing)
    return found


def _run_stage(loaded, workspace, item, keys, unloaded):
    """unloaded: names of stages, to which this one is added where rows of its artifact leave the database before it is made again."""
    stage, cached = loaded.experiment.stages[item.stage], _cached(workspace, item)
    if not item.key:
        logger.info("%-12s %s", item.stage, item.reason)
        return cached
    if item.action == "cached":
        link_cached(loaded, workspace, item, partial(work, loaded, item))
        return cached
    for name in loaded.experiment.inputs(item.stage).values():
        if not workspace.is_finished(name, keys[name]):
            raise CltdbError(
                f"stage {item.stage}",
                found=f"its input {name} is not finished",
                expected="every input finished",
                do=f"run with --until {item.stage} instead of --only",
            )
        integrity.require_whole(workspace.artifact(name, keys[name]))
        if item.reason == "forced":  # before what is there is removed
            integrity.check_content(workspace.artifact(name, keys[name]), also_shards=stage.gathers is None)
    logger.info("%-12s run: %s", item.stage, item.reason)
    with workspace.claim(item.stage, item.key):
        if item.reason != "forced" and not stage.gathers and workspace.is_finished(item.stage, item.key):
            if not stage.wants_more(loaded.experiment, cached.directory):
                link_cached(loaded, workspace, item, partial(work, loaded, item))  # another process was faster
                return cached
        return _execute(loaded, workspace, item, keys, unloaded)


def _execute(loaded, workspace, item, keys, unloaded):
    stage, device = loaded.experiment.stages[item.stage], present_device(loaded.experiment.device)
    job = job_of(loaded, workspace, item, keys)
    if _make_room(loaded, workspace, item):
        unloaded.add(item.stage)
    job.directory.mkdir(parents=True, exist_ok=True)
    record = new_record(loaded, item, work(loaded, item)) | {"device": device}
    start = time.monotonic()
    try:
        workspace.save_run(record)
        with explain_full_disk(job.directory / item.stage), reported(workspace.report_path(record["run_id"])):
            run_stage(job)
            manifest = {"version": stage.version, "key_parts": item.parts, "experiment": job.experiment.name}
            manifest |= {"seed": loaded.experiment.seed}
            manifest |= {name: record[name] for name in ("started_at", "host", "device", "versions")}
            workspace.finish_artifact(item.stage, item.key, manifest, known_hashes=stage.known_hashes(job.directory))
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        record |= {
            "status": "killed" if interrupted else "failed",
            "seconds": time.monotonic() - start,
            "error": "interrupted" if interrupted else str(error) or type(error).__name__,
        }
        with but_not_in_the_way("the failure could not be recorded"):
            workspace.save_run(record)
        raise
    record |= {"status": "done", "seconds": time.monotonic() - start}
    workspace.save_run(record)
    return StageResult(item.stage, "run", record["seconds"], workspace.artifact(item.stage, item.key))


def job_of(loaded, workspace, item, keys):
    """The `Job` of a planned stage. The artifact keeps the name of the experiment that first made it."""
    experiment = loaded.experiment.model_copy(update={"name": known_as(workspace, item) or loaded.experiment.name})
    inputs = experiment.inputs(item.stage)
    return Job(
        experiment.stages[item.stage],
        pinned(experiment, loaded.project),
        loaded.project,
        item.key,
        workspace.partial(item.stage, item.key),
        {wanted: workspace.artifact(name, keys[name]) for wanted, name in inputs.items()},
        {wanted: keys[name] for wanted, name in inputs.items()},
    )


def pinned(experiment, project):
    """The experiment with commits instead of branches, so that all that reads models, texts and dictionaries, in any process, reads the
    same."""
    found = {name: stage.pinned(experiment, project) for name, stage in experiment.present.items()}
    return experiment.model_copy(update={name: section for name, section in found.items() if section is not None})


def _make_room(loaded, workspace, item):
    """Removes a forced artifact, or what is left of one, and its rows from the database, before it is made again; returns whether there were any.
    One that is continued stays, with its rows, until the new one is finished."""
    artifact, partial = workspace.artifact(item.stage, item.key), workspace.partial(item.stage, item.key)
    gathering = loaded.experiment.gathering
    gathers = loaded.experiment.stages[item.stage].gathers is not None
    if item.reason == "forced" or gathers:
        had_rows = False
        if not gathers and (artifact.exists() or partial.exists()):
            had_rows = gathering.remove(loaded.project, item.key)
            units.forget(workspace.root, [artifact, partial])
        workspace.discard(item.stage, item.key)
        return had_rows
    if workspace.is_finished(item.stage, item.key):
        return False
    if artifact.exists() or not partial.exists() and made_by(workspace, item):
        return gathering.remove(loaded.project, item.key)  # the folder goes when the new one is finished
    return False
