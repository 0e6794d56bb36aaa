"""What would run and why: the keys of an experiment's stages, what of them is finished, what can be known to fail, how long it takes."""

from contextlib import contextmanager
from typing import NamedTuple

from cltdb.devices import present_device
from cltdb.engine import durations, integrity, revisions
from cltdb.engine.launch import check_hosts
from cltdb.engine.records import latest_parts, records_in_order
from cltdb.engine.stage import nothing
from cltdb.engine.workspace import Workspace, digest
from cltdb.errors import CltdbError
from cltdb.memory import without_garbage


class PlannedStage(NamedTuple):
    """One line of a plan: `action` is cached or run; `key` is empty where the experiment has no use for the stage."""

    stage: str
    key: str
    action: str
    reason: str
    parts: dict


def key_parts(name, experiment, project, keys):
    """What a stage's key hashes, by name, so that a plan can say which part changed; `keys` are those of the stages before."""
    stage = experiment.stages[name]
    parts = {"version": stage.version}
    parts |= {f"input {wanted}": keys[provider] for wanted, provider in experiment.inputs(name).items()}
    if stage.section:
        parts |= {f"{name}.{key}": value for key, value in getattr(experiment, name).result_settings().items()}
    return parts | stage.identity(experiment, project)


def keys_for(name, experiment, project):
    """{stage: key} of a stage and of all that its artifact is made from."""
    keys, needed = {}, experiment.needed(name)
    for stage in experiment.present:
        if stage in needed and not experiment.idle(stage):
            keys[stage] = digest([stage, key_parts(stage, experiment, project, keys)])
    return keys


@revisions.asked_once()
def plan(loaded, *, force=(), made=(), records=None):
    """A `PlannedStage` for every stage, in order. `made`: keys that need no forcing any more; records: the workspace's run records,
    where the caller has read them."""
    workspace, experiment = Workspace(loaded.project.workspace), loaded.experiment
    previous = latest_parts(workspace.run_records() if records is None else records, experiment.name)
    keys, planned = {}, []
    for name in experiment.present:
        if reason := experiment.idle(name):
            planned.append(PlannedStage(name, "", "cached", reason, {}))
            continue
        parts = key_parts(name, experiment, loaded.project, keys)
        keys[name] = digest([name, parts])
        if name in force and keys[name] not in made:
            item = PlannedStage(name, keys[name], "run", "forced", parts)
        else:
            is_made_again = any(other.action == "run" for other in planned)
            item = _plan_stage(loaded, workspace, keys, parts, previous.get(name), is_made_again)
        if there := _units_there(loaded, item):
            item = item._replace(reason=f"{item.reason}; {there.text}")
        planned.append(item)
    return planned


def _plan_stage(loaded, workspace, keys, parts, before, is_made_again):
    """The `PlannedStage` of the last stage of `keys`; before: the key parts of its last run; is_made_again: whether a stage before it runs, of whose
    artifact nothing is read then: it may be damaged."""
    name = list(keys)[-1]
    key, gathers = keys[name], loaded.experiment.stages[name].gathers
    if workspace.is_finished(name, key):
        if more := loaded.experiment.stages[name].wants_more(loaded.experiment, workspace.artifact(name, key)):
            return PlannedStage(name, key, "run", more, parts)
        if gathers and is_made_again:
            return PlannedStage(name, key, "run", "what it holds is made again", parts)
        missing = gathers and gathers.missing(loaded.project, _gathered(loaded.experiment, workspace, name, keys))
        return PlannedStage(name, key, "run" if missing else "cached", missing or "finished", parts)
    if workspace.partial(name, key).exists():
        return PlannedStage(name, key, "run", "unfinished: continues from its last finished unit", parts)
    if before is None:
        return PlannedStage(name, key, "run", "new", parts)
    changed = [part for part in parts if before.get(part) != parts[part]]
    reason = "changed: " + ", ".join(changed) if changed else "its artifact is gone"
    return PlannedStage(name, key, "run", reason, parts)


def _gathered(experiment, workspace, name, keys):
    """{stage: (key, directory)} of the artifacts that a stage reads."""
    return {other: (keys[other], workspace.artifact(other, keys[other])) for other in experiment.inputs(name).values()}


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


# What can be known to fail.


def check_launch(name, loaded):
    """Raises what is wrong with the machines that a stage is to run on."""
    launch = getattr(getattr(loaded.experiment, name, None), "launch", None)
    if launch is not None:
        check_hosts(name, launch, loaded.project.root)


@without_garbage()
def check(loaded, planned):
    """Raises what can be known to fail in the stages that will run, before any of them does, and damage of what is cached."""
    workspace = Workspace(loaded.project.workspace)
    for item in planned:
        if item.action == "run":
            _check_files(loaded, item)
            loaded.experiment.stages[item.stage].check(loaded.experiment, loaded.project)
            check_launch(item.stage, loaded)
        elif item.key and workspace.is_finished(item.stage, item.key):  # which an earlier point of a sweep may yet make
            integrity.require_whole(workspace.artifact(item.stage, item.key))


def check_plan(loaded, planned):
    """Raises what a plan can tell to be wrong without a run: files that stages to run name, damage of what is cached, no room for what stages
    estimate, hosts."""
    stages = loaded.experiment.stages
    for item in planned:
        if item.action == "run":
            _check_files(loaded, item)
        check_launch(item.stage, loaded)
    check(loaded, [item for item in planned if item.action == "cached" or stages[item.stage].estimate is not nothing])


def _check_files(loaded, item):
    loaded.experiment.stages[item.stage].check_files(loaded.experiment, loaded.project)


@contextmanager
def of_point(loaded):
    """Within it, an error says of which point of a sweep it is."""
    try:
        yield
    except CltdbError as error:
        if not loaded.sweep:
            raise
        where = f"{error.where} (point {loaded.experiment.name})"
        raise type(error)(where, found=error.found, expected=error.expected, do=error.do) from error


@without_garbage()
def preflight(loaded, planned):
    """Raises what the model's sizes and tokens can tell of the stages that will run, before any of them does."""
    for item in planned:
        stage = loaded.experiment.stages[item.stage]
        if item.action == "run" and not stage.gathers:
            present_device(loaded.experiment.device)
            stage.preflight(loaded.experiment, loaded.project)


# What it will take.


def estimates(loaded, planned, *, measure):
    """{key: what a stage's `estimate` says} of the stages that will run. measure: with what takes a model to be loaded."""
    found = {
        item.key: loaded.experiment.stages[item.stage].estimate(loaded.experiment, loaded.project, measure=measure)
        for item in planned
        if item.action == "run"
    }
    return {key: estimate for key, estimate in found.items() if estimate is not None}


def times(loaded, planned, records=None):
    """{stage: `durations.Duration`} of the stages of a plan whose time earlier runs tell. records: `records_in_order`, where the
    caller has read them."""
    records = records_in_order(loaded.project) if records is None else records
    works = {item.stage: work(loaded, item) for item in planned} if records else {}
    known = {name: found for name, found in works.items() if found}
    return durations.estimates(loaded.experiment.name, known, planned, records)


def work(loaded, item):
    """(number of units, unit) of a stage that begins anew, else None."""
    if item.reason.startswith("unfinished"):
        return None
    found = loaded.experiment.stages[item.stage].work(loaded.experiment, loaded.project)
    there = _units_there(loaded, item)
    if not found or not there:
        return found
    return (found[0] - there.n_units, found[1]) if there.n_units and there.n_units < found[0] else None


def _units_there(loaded, item):
    """The `units.There` of a stage that will run, None where nothing of it is there or all is to be made again."""
    if item.action == "cached" or item.reason == "forced":
        return None
    input_keys = {name: item.parts[f"input {name}"] for name in loaded.experiment.inputs(item.stage)}
    return loaded.experiment.stages[item.stage].there(loaded.experiment, loaded.project, input_keys)
