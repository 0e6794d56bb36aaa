"""Run records: one JSON file per execution of a stage, with what ran, where, with which versions, and how it ended."""

import logging
import os
import platform
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cltdb import __version__
from cltdb.engine import integrity
from cltdb.engine.workspace import MANIFEST, Workspace
from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
CACHED = "-cached"
"""Ends the id of a run record that links a spec to an artifact that was there already."""
KILLED = "the process ended without an error message (killed, or out of memory)"
PACKAGES = ("torch", "transformers", "datasets", "duckdb", "polars", "pyarrow", "deepspeed", "litellm")


def records_in_order(project):
    """The run records of a workspace, the first one first."""
    return sorted(Workspace(project.workspace).run_records(), key=lambda record: record["started_at"])


def latest_parts(records, experiment):
    """{stage: key parts} of the experiment's last finished run of each stage, to say what changed."""
    latest = {}
    for record in records:
        if record["experiment"] == experiment and record["status"] == "done":
            latest[record["stage"]] = record["key_parts"]
    return latest


def experiment_record(loaded):
    """The record of a spec that is run."""
    return {
        "experiment": loaded.experiment.name,
        "spec_hash": loaded.spec_hash,
        "spec_yaml": loaded.text,
        "created_at": _now(),
        "sweep": loaded.sweep,
        "swept": loaded.swept,
    }


def new_record(loaded, item, work):
    """The record of a stage that begins; item: its `PlannedStage`; work: (number of units, unit) or None."""
    started = _now()
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
        "device": loaded.experiment.device,
        "versions": versions(),
        "error": None,
        "pid": os.getpid(),
        "boot_id": _boot_id(),
        "key_parts": item.parts,
        "work": work and {"n": work[0], "unit": work[1]},
    }


def link_cached(loaded, workspace, item, work):
    """Links this spec to an artifact that was there already: once, and again where the experiment has made or taken another since, so that its last
    record names what it has now. work(): (number of units, unit) or None, asked where a link is made."""
    run_id = f"{loaded.experiment.name}-{loaded.spec_hash}-{item.stage}-{item.key[:8]}{CACHED}"
    done = [record for record in workspace.runs_of_experiment(loaded.experiment.name, item.stage) if record["status"] == "done"]
    linked = any((record["spec_hash"], record["key"]) == (loaded.spec_hash, item.key) for record in done)
    if not linked or max(done, key=lambda record: record["started_at"])["key"] != item.key:
        device = workspace.manifest(item.stage, item.key)["device"]
        record = {**new_record(loaded, item, work()), "run_id": run_id, "status": "done", "seconds": 0.0, "device": device}
        workspace.save_run(record)


def known_as(workspace, item):
    """The name of the experiment that first made an artifact: what others know it by, such as its dict_id, stays. None: nobody did."""
    with suppress(OSError, ValueError):
        return integrity.read_sealed(workspace.artifact(item.stage, item.key) / MANIFEST)["experiment"]
    made = made_by(workspace, item)
    return made[0]["experiment"] if made else None


def made_by(workspace, item):
    """Records of the runs that made an artifact, the first one first."""
    made = [
        record
        for record in workspace.runs_of(item.stage, item.key)
        if record["status"] == "done" and not record["run_id"].endswith(CACHED)
    ]
    return sorted(made, key=lambda record: record["started_at"])


@contextmanager
def but_not_in_the_way(what):
    """Logs a failure of the block instead of raising it: the failure that the block is to record matters more."""
    try:
        yield
    except CltdbError as error:
        logger.error("%s: %s", what, error)


def is_running(record):
    """True of a run that has not ended, as far as this machine can know: its own processes it can see, others' it believes."""
    return record["status"] == "running" and (record["host"] != platform.node() or is_alive(record))


def mark_killed(workspace):
    """Every run record, those left `running` by a dead process of this machine as `killed`, also on disk."""
    records = workspace.run_records()
    for record in records:
        if record["status"] == "running" and not is_running(record):
            with suppress(OSError):
                workspace.report_path(record["run_id"]).unlink()
            record |= {"status": "killed", "error": KILLED}
            with but_not_in_the_way("a killed run could not be marked"):
                workspace.save_run(record)
    return records


def is_alive(record):
    """True where the process that wrote a record is there, on this machine."""
    if record["boot_id"] != _boot_id():
        return False
    try:
        state, *rest = process_stat(record["pid"])
        began = time.time() - float(Path("/proc/uptime").read_text().split()[0]) + int(rest[18]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return False
    if state == "Z":  # it has ended, and nobody has waited for it
        return False
    return began <= datetime.fromisoformat(record["started_at"]).timestamp() + 2  # else the pid is another process's by now


def process_stat(pid):
    """What Linux says of a process after its name, its state first, Z of one that has ended and that nobody has waited for; OSError where there is
    none. Source: proc(5), /proc/pid/stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _boot_id():
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


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
