"""Plans and runs an experiment: stage keys, what is finished and why not, run records, failures, resume."""

import logging
import os
import platform
import shutil
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from cltdb import __version__
from cltdb.engine import integrity, revisions, units
from cltdb.engine.config import Loaded
from cltdb.engine.durations import estimates
from cltdb.engine.launch import check_hosts, run_stage
from cltdb.engine.workspace import IMPORTS, INTERVENTIONS, MANIFEST, Workspace, digest, explain_full_disk, read_json
from cltdb.errors import CltdbError
from cltdb.memory import keep_freed_memory, ran_out
from cltdb.stages import SELF_CHECKED, STAGES, UNITS, WORK, StageContext, idle, inputs_of, key_parts, pinned

logger = logging.getLogger(__name__)
CACHED = "-cached"
"""Ends the id of a run record that links a spec to an artifact that was there already."""
PACKAGES = ("torch", "transformers", "datasets", "duckdb", "polars", "pyarrow", "deepspeed", "litellm")


class PlannedStage(NamedTuple):
    """One line of a plan: `action` is cached or run; `key` is empty where the experiment has no use for the stage."""

    stage: str
    key: str
    action: str
    reason: str
    parts: dict


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
def plan(loaded, *, force=(), made=(), records=None):
    """A `PlannedStage` for every stage, in order. `made`: keys that need no forcing any more; records: the workspace's run records,
    where the caller has read them."""
    workspace = Workspace(loaded.project.workspace)
    previous = _latest_parts(workspace.run_records() if records is None else records, loaded.experiment.name)
    keys, planned = {}, []
    for stage in STAGES:
        if reason := idle(stage, loaded.experiment):
            planned.append(PlannedStage(stage, "", "cached", reason, {}))
            continue
        parts = key_parts(stage, loaded.experiment, loaded.project, keys)
        keys[stage] = digest([stage, parts])
        forced = stage in force and keys[stage] not in made
        item = _plan_stage(stage, keys, parts, workspace, loaded, previous.get(stage), forced)
        if there := _units_there(loaded, item):
            item = item._replace(reason=f"{item.reason}; {there.text}")
        planned.append(item)
    if any(item.action == "run" for item in planned[:-1]) and planned[-1].action == "cached":
        planned[-1] = planned[-1]._replace(action="run", reason="what it holds is made again")
    return planned


def check_launch(stage, loaded):
    """Raises what is wrong with the machines that a stage is to run on."""
    launch = getattr(getattr(loaded.experiment, stage, None), "launch", None)
    if launch is not None:
        check_hosts(stage, launch, loaded.project.root)


def check(loaded, planned):
    """Raises what can be known to fail in the stages that will run, before any of them does, and damage of what is cached."""
    workspace = Workspace(loaded.project.workspace)
    for item in planned:
        if item.action == "run":
            STAGES[item.stage].check(loaded.experiment, loaded.project)
            check_launch(item.stage, loaded)
        elif item.key and workspace.is_finished(item.stage, item.key):  # which an earlier point of a sweep may yet make
            integrity.require_whole(workspace.artifact(item.stage, item.key))


def records_in_order(project):
    """The run records of a workspace, the first one first."""
    return sorted(Workspace(project.workspace).run_records(), key=lambda record: record["started_at"])


def durations(loaded, planned, records=None):
    """{stage: `durations.Duration`} of the stages of a plan whose time earlier runs tell. records: `records_in_order`, where the
    caller has read them."""
    records = records_in_order(loaded.project) if records is None else records
    work = {item.stage: _work(loaded, item) for item in planned} if records else {}
    known = {stage: found for stage, found in work.items() if found}
    return estimates(loaded.experiment.name, known, planned, records)


def _work(loaded, item):
    """(number of units, unit) of a stage that begins anew, else None."""
    if item.reason.startswith("unfinished") or item.stage not in WORK:
        return None
    work, there = WORK[item.stage](loaded.experiment, loaded.project), _units_there(loaded, item)
    if not work or not there:
        return work
    return (work[0] - there.n_units, work[1]) if there.n_units and there.n_units < work[0] else None


def _units_there(loaded, item):
    """The `units.There` of a stage that will run, None where nothing of it is there or all is to be made again."""
    if item.stage not in UNITS or item.action == "cached" or item.reason == "forced":
        return None
    input_keys = {name: item.parts[f"input {name}"] for name in STAGES[item.stage].inputs}
    return UNITS[item.stage](loaded.experiment, loaded.project, input_keys)


def preflight(loaded, planned):
    """Raises what the model's sizes and tokens can tell of the stages that will run, before any of them does."""
    for item in planned:
        if item.action == "run" and item.stage != "database":
            _resolved(loaded.experiment.model.device)
            STAGES[item.stage].preflight(loaded.experiment, loaded.project)


@revisions.asked_once()
def plan_points(points):
    """(loaded, planned) of every point of a sweep; what an earlier point makes is cached for those after it."""
    makers, plans, records = {}, [], Workspace(points[0].project.workspace).run_records()
    for loaded in points:
        planned = []
        for item in plan(loaded, records=records):
            maker = makers.get((item.stage, item.key))
            planned.append(item._replace(action="cached", reason=f"shared with {maker}") if maker else item)
            if planned[-1].action == "run":
                makers[item.stage, item.key] = loaded.experiment.name
        plans.append((loaded, planned))
    return plans


def _plan_stage(stage, keys, parts, workspace, loaded, before, forced):
    key = keys[stage]
    if forced:
        return PlannedStage(stage, key, "run", "forced", parts)
    if workspace.is_finished(stage, key):
        missing = stage == "database" and _unloaded(loaded, keys)
        return PlannedStage(stage, key, "run" if missing else "cached", missing or "finished", parts)
    if workspace.partial(stage, key).exists():
        return PlannedStage(stage, key, "run", "unfinished: continues from its last finished unit", parts)
    if before is None:
        return PlannedStage(stage, key, "run", "new", parts)
    changed = [name for name in parts if before.get(name) != parts[name]]
    reason = "changed: " + ", ".join(changed) if changed else "its artifact is gone"
    return PlannedStage(stage, key, "run", reason, parts)


def _unloaded(loaded, keys):
    """Why the database lacks something of this experiment, or nothing."""
    from cltdb.database import load

    project, inputs = loaded.project, inputs_of("database", loaded.experiment)
    if not project.database.exists():
        return "the database file is gone"
    absent = load.absent_artifacts(
        project.database,
        [(keys[stage], Workspace(project.workspace).artifact(stage, keys[stage])) for stage in inputs],
    )
    return f"not in the database: {len(absent)} artifacts" if absent else ""


def _latest_parts(records, experiment):
    """{stage: key parts} of the experiment's last finished run of each stage, to say what changed."""
    latest = {}
    for record in records:
        if record["experiment"] == experiment and record["status"] == "done":
            latest[record["stage"]] = record["key_parts"]
    return latest


@revisions.asked_once()
def run_points(points, *, only=None, until=None, force=()):
    """Runs the points of a sweep one after the other; returns a `PointResult` for each.

    What can be known to fail is an error before the first; a point that fails later is recorded as failed, and the others run.
    """
    records = Workspace(points[0].project.workspace).run_records()
    for loaded in points:
        chosen = _chosen(only=only, until=until)
        planned = [item for item in plan(loaded, force=force, records=records) if item.stage in chosen]
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


def _chosen(*, only, until, wanted=None):
    names = list(STAGES)
    return {only} if only else set(names[: names.index(until) + 1]) if until else wanted or set(names)


@revisions.asked_once()
def run(loaded, *, only=None, until=None, force=(), wanted=None, made=None):
    """Runs what is missing, in order; returns a `StageResult` per stage considered. `wanted`: just these stages and what they
    need. `made`: a set of keys that are not forced again, to which those made now are added."""
    keep_freed_memory()
    workspace = Workspace(loaded.project.workspace)
    workspace.root.mkdir(parents=True, exist_ok=True)
    mark_killed(workspace)
    workspace.save_experiment(loaded.experiment.name, loaded.spec_hash, _experiment_record(loaded))
    made = set() if made is None else made
    planned = plan(loaded, force=force, made=made)
    chosen = _chosen(only=only, until=until, wanted=wanted)
    check(loaded, [item for item in planned if item.stage in chosen])
    preflight(loaded, [item for item in planned if item.stage in chosen])
    if "database" in chosen:
        _restore_database(loaded.project, workspace)
    keys = {item.stage: item.key for item in planned}
    results = []
    try:
        for item in planned:
            if item.stage in chosen:
                results.append(_run_stage(loaded, workspace, item, keys))
                made.add(item.key)
    except BaseException:
        with _but_not_in_the_way("the run's records are not in the database yet"):
            publish_records(loaded.project)
        raise
    publish_records(loaded.project)
    return results


def _restore_database(project, workspace):
    """Makes a database that is gone anew, with all that was in it: also what other experiments, imports and interventions brought."""
    known = {stage for stage, *_ in workspace.artifacts()} & {"database", IMPORTS, INTERVENTIONS}
    if known and not project.database.exists():
        logger.info("%s is gone: it is made anew from the artifacts", project.database)
        for error in rebuild_database(project):
            logger.warning("not in the database: %s", error)


def _experiment_record(loaded):
    return {
        "experiment": loaded.experiment.name,
        "spec_hash": loaded.spec_hash,
        "spec_yaml": loaded.text,
        "created_at": _now(),
        "sweep": loaded.sweep,
        "swept": loaded.swept,
    }


def _run_stage(loaded, workspace, item, keys):
    if not item.key:
        return StageResult(item.stage, "cached", 0.0, None)
    if item.action == "cached":
        _record_cached(loaded, workspace, item)
        return StageResult(item.stage, "cached", 0.0, workspace.artifact(item.stage, item.key))
    for name in inputs_of(item.stage, loaded.experiment):
        if not workspace.is_finished(name, keys[name]):
            raise CltdbError(
                f"stage {item.stage}",
                found=f"its input {name} is not finished",
                expected="every input finished",
                do=f"run with --until {item.stage} instead of --only",
            )
        integrity.require_whole(workspace.artifact(name, keys[name]))
        if item.reason == "forced":  # before what is there is removed
            integrity.check_content(workspace.artifact(name, keys[name]), also_shards=item.stage == "train")
    logger.info("%-12s run: %s", item.stage, item.reason)
    with workspace.claim(item.stage, item.key):
        if item.reason != "forced" and item.stage != "database" and workspace.is_finished(item.stage, item.key):
            _record_cached(loaded, workspace, item)  # another process was faster
            return StageResult(item.stage, "cached", 0.0, workspace.artifact(item.stage, item.key))
        return _execute(loaded, workspace, item, keys)


def _execute(loaded, workspace, item, keys):
    experiment, device = loaded.experiment, _resolved(loaded.experiment.model.device)
    experiment = experiment.model_copy(update={"name": _known_as(workspace, item) or experiment.name})
    _make_room(loaded, workspace, item)
    directory = workspace.partial(item.stage, item.key)
    directory.mkdir(parents=True, exist_ok=True)
    inputs = inputs_of(item.stage, experiment)
    context = StageContext(
        pinned(experiment, loaded.project),
        loaded.project,
        item.key,
        directory,
        {name: workspace.artifact(name, keys[name]) for name in inputs},
        {name: keys[name] for name in inputs},
    )
    record = _new_record(loaded, item) | {"device": device}
    start = time.monotonic()
    try:
        workspace.save_run(record)
        with explain_full_disk(directory / item.stage):
            run_stage(item.stage, context)
            workspace.finish_artifact(
                item.stage,
                item.key,
                {
                    "version": STAGES[item.stage].version,
                    "key_parts": item.parts,
                    "experiment": experiment.name,
                    "seed": loaded.experiment.seed,
                    **{name: record[name] for name in ("started_at", "host", "device", "versions")},
                },
                known_hashes=SELF_CHECKED[item.stage](directory) if item.stage in SELF_CHECKED else None,
            )
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        record |= {
            "status": "killed" if interrupted else "failed",
            "seconds": time.monotonic() - start,
            "error": "interrupted" if interrupted else str(error) or type(error).__name__,
        }
        with _but_not_in_the_way("the failure could not be recorded"):
            workspace.save_run(record)
        raise
    record |= {"status": "done", "seconds": time.monotonic() - start}
    workspace.save_run(record)
    return StageResult(item.stage, "run", record["seconds"], workspace.artifact(item.stage, item.key))


@contextmanager
def _but_not_in_the_way(what):
    """Logs a failure of the block: the failure that it is to record matters more."""
    try:
        yield
    except CltdbError as error:
        logger.error("%s: %s", what, error)


def _known_as(workspace, item):
    """The name of the experiment that first made an artifact: what others know it by, such as its dict_id, stays. None: nobody did."""
    with suppress(OSError, ValueError):
        return integrity.read_sealed(workspace.artifact(item.stage, item.key) / MANIFEST)["experiment"]
    made = _made_by(workspace, item)
    return made[0]["experiment"] if made else None


def _made_by(workspace, item):
    """Records of the runs that made an artifact, the first one first."""
    made = [
        record
        for record in workspace.run_records()
        if (record["stage"], record["key"], record["status"]) == (item.stage, item.key, "done")
        and not record["run_id"].endswith(CACHED)
    ]
    return sorted(made, key=lambda record: record["started_at"])


def _make_room(loaded, workspace, item):
    """Removes a forced artifact, or what is left of one, and its rows from the database, before it is made again."""
    artifact, partial = workspace.artifact(item.stage, item.key), workspace.partial(item.stage, item.key)
    if item.reason == "forced" or item.stage == "database":
        if item.stage != "database" and (artifact.exists() or partial.exists()):
            _unload(loaded.project, workspace, item.key)
        units.forget(workspace.root, [artifact, partial])
        workspace.discard(item.stage, item.key)
    elif artifact.exists() or not partial.exists() and _made_by(workspace, item):
        _unload(loaded.project, workspace, item.key)  # the folder goes when the new one is finished


def _unload(project, workspace, key):
    """Takes an artifact's rows out of the database, and brings in those of others that it had hidden."""
    from cltdb.database import load

    if project.database.exists():
        load.unload_artifact(project.database, key=key)
        load.load_missing(project.database, [(other, place) for _, other, place in workspace.artifacts() if other != key])


def _new_record(loaded, item):
    started, work = _now(), _work(loaded, item)
    stamp = "".join(character for character in started if character.isdigit())
    return {
        "run_id": f"{loaded.experiment.name}-{item.stage}-{item.key[:8]}-{stamp}-{os.getpid()}",
        "experiment": loaded.experiment.name,
        "spec_hash": loaded.spec_hash,
        "stage": item.stage,
        "key": item.key,
        "status": "running",
        "started_at": started,
        "seconds": None,
        "host": platform.node(),
        "device": loaded.experiment.model.device,
        "versions": versions(),
        "error": None,
        "pid": os.getpid(),
        "boot_id": _boot_id(),
        "key_parts": item.parts,
        "work": work and {"n": work[0], "unit": work[1]},
    }


def _record_cached(loaded, workspace, item):
    """Links this spec to an artifact that was there already, once."""
    run_id = f"{loaded.experiment.name}-{loaded.spec_hash}-{item.stage}-{item.key[:8]}{CACHED}"
    linked = any(
        record["spec_hash"] == loaded.spec_hash
        and record["experiment"] == loaded.experiment.name
        and record["key"] == item.key
        and record["status"] == "done"
        for record in workspace.run_records()
    )
    if not linked:
        device = workspace.manifest(item.stage, item.key)["device"]
        record = {**_new_record(loaded, item), "run_id": run_id, "status": "done", "seconds": 0.0, "device": device}
        workspace.save_run(record)


def _resolved(device):
    """The device that `auto` stands for on this machine; CltdbError where the named one is not there."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise CltdbError(
            "model.device",
            found=f"{device}, on a machine without a CUDA device",
            expected="cpu, cuda or auto",
            do="set model.device: auto",
        )
    if device.startswith("cuda:") and device[5:].isdecimal() and int(device[5:]) >= torch.cuda.device_count():
        raise CltdbError(
            "model.device",
            found=f"{device}, on a machine with {torch.cuda.device_count()} CUDA devices",
            expected=f"cuda:0 to cuda:{torch.cuda.device_count() - 1}",
            do="choose one of these, or auto",
        )
    return ("cuda:0" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def mark_killed(workspace):
    """Every run record, those left `running` by a dead process of this machine as `killed`, also on disk."""
    records = workspace.run_records()
    for record in records:
        if record["status"] == "running" and record["host"] == platform.node() and not _is_alive(record):
            record |= {"status": "killed", "error": "the process ended without a word"}
            with _but_not_in_the_way("a killed run could not be marked"):
                workspace.save_run(record)
    return records


def _is_alive(record):
    if record["boot_id"] != _boot_id():
        return False
    try:
        command = Path(f"/proc/{record['pid']}/stat").read_text().split()
        began = time.time() - float(Path("/proc/uptime").read_text().split()[0]) + int(command[21]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return False
    return began <= datetime.fromisoformat(record["started_at"]).timestamp() + 2  # else the pid is another process's by now


def _boot_id():
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def publish_records(project):
    """Brings experiments, run records and the metrics of unfinished trainings into the database, where there is one."""
    from cltdb.database import publish

    if project.database.exists():
        workspace = Workspace(project.workspace)
        publish.publish_records(project.database, workspace)
        publish.publish_unfinished(project.database, workspace)


def rebuild_database(project):
    """Makes the database anew: every finished artifact, imports and interventions too, metrics of unfinished trainings, records.
    Returns the errors of damaged artifacts, which it then lacks; the first is raised where there is a database that is whole."""
    from cltdb.database import load
    from cltdb.database.publish import stage_run_rows

    workspace = Workspace(project.workspace)
    whole, damaged = _whole_artifacts(workspace)
    if damaged and load.is_sound(project.database):
        raise damaged[0]
    load.rebuild(
        project.database,
        artifacts=whole,
        unfinished=workspace.unfinished("train"),
        experiments=workspace.experiment_records(),
        stage_runs=stage_run_rows(workspace),
    )
    return damaged


def _whole_artifacts(workspace):
    """((key, directory) of the finished artifacts that a database holds, errors of those whose rows are damaged)."""
    from cltdb.database.parts import artifact_parts

    whole, damaged = [], []
    for stage, key, directory in workspace.artifacts():
        if stage in {*STAGES, IMPORTS, INTERVENTIONS} and stage != "database":
            try:
                integrity.require_whole(directory)
                for part in artifact_parts(directory):
                    integrity.checked(part.path)
                whole.append((key, directory))
            except CltdbError as error:
                damaged.append(error)
    return whole, damaged


def loadable_artifacts(project):
    """(key, directory) of the finished artifacts that ought to be in the database: inputs of its finished stages, imports,
    interventions."""
    workspace = Workspace(project.workspace)
    artifacts = workspace.artifacts()
    loaded = {key for stage, _, place in artifacts if stage == "database" for key in _loaded_keys(place)}
    return [(key, place) for stage, key, place in artifacts if key in loaded or stage in (IMPORTS, INTERVENTIONS)]


def _loaded_keys(directory):
    path = directory / "loaded.json"
    return read_json(integrity.checked(path)).values() if path.is_file() else ()


def damage(project):
    """The errors of all records, files of finished artifacts and units that are not as they were written; every byte is read."""
    from cltdb.activations.storage import damaged_shards

    for path, fault in Workspace(project.workspace).record_faults():
        do = "run its spec again, which writes a new one; the next command sets this one aside"
        yield CltdbError(f"{path} (a record of a run)", found=f"damage: {fault}", expected="a record as it was written", do=do)
    for stage, _, directory in Workspace(project.workspace).folders():
        if (directory / MANIFEST).is_file():
            found = list(integrity.faults(directory, thorough=True))
            yield from found
            if stage == "activations" and not found:
                yield from damaged_shards(directory)
        elif stage in STAGES:
            do = f"run its spec again, which makes stage {stage} anew, or remove the folder"
            yield CltdbError(f"{directory} (stage {stage})", found="no manifest.json", expected="a finished artifact", do=do)
    yield from units.damage(project.workspace)


def count_unhashed(project):
    """How many finished artifacts are of an earlier cltdb, whose manifests have no hashes."""
    count = 0
    for *_, directory in Workspace(project.workspace).artifacts():
        with suppress(CltdbError):
            count += "files" not in integrity.read_manifest(directory)
    return count


def collect_garbage(project, *, delete):
    """(directories of artifacts that no run record refers to and what killed removals left, paths of units that no artifact uses);
    removed if `delete`."""
    workspace = Workspace(project.workspace)
    wanted = {(record["stage"], record["key"]) for record in workspace.run_records()}
    unread = [path.name for path in workspace.damaged_records()]  # a record's name says which artifact it refers to
    unwanted = [
        (stage, key, directory)
        for stage, key, directory in workspace.folders()
        if stage in STAGES
        and (stage, key) not in wanted
        and not any(f"-{stage}-{key[:8]}-" in name or f"-{stage}-{key[:8]}{CACHED}" in name for name in unread)
    ]
    leftovers = workspace.leftovers()
    unused = units.unused(workspace.root, ignoring=[directory for *_, directory in unwanted])
    if delete:
        for stage, key, _ in unwanted:
            with workspace.claim(stage, key):
                _unload(project, workspace, key)
                workspace.discard(stage, key)
        for directory in leftovers:
            shutil.rmtree(directory, ignore_errors=True)
        units.remove(unused)
        _finish_unloading(project, workspace)
    return [*(directory for _, _, directory in unwanted), *leftovers], unused


def _finish_unloading(project, workspace):
    """Brings in what a killed collection had taken out without its being unwanted."""
    from cltdb.database import load

    if project.database.exists():
        load.load_missing(project.database, [(key, directory) for _, key, directory in workspace.artifacts()])


@cache
def versions():
    """{package: version} of cltdb and what its numbers depend on."""
    found = {"cltdb": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _now():
    return datetime.now(UTC).isoformat(timespec="milliseconds")
