"""What runs now. The database learns of a stage when its run ends; until then the records of the workspace tell of it.

Reads: <workspace>/runs/*.json, and beside the record of a stage that runs how far it is (`log.reported`).
"""

import json
import platform
from datetime import UTC, datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import NamedTuple

import flask

from cltdb.engine import records
from cltdb.engine.durations import estimates
from cltdb.engine.integrity import read_sealed
from cltdb.engine.workspace import RUN_FIELDS, Workspace, read_json
from cltdb.errors import CltdbError

WORKSPACE = "CLTDB_WORKSPACE"
"""Where an app keeps the path of the workspace that fills its database, None where it has none: a key of `app.server.config`."""
CLOSING = "CLTDB_CLOSING"
"""Where an app keeps a function of {stage: directory} that says what `cltdb run` says at its end; None where it has none."""
NOT_BEFORE_S = 10
"""A rate that is measured over less than this says little."""


LAST = 8
STEPS = ("status", "seconds", "error")
"""What changes of a run while it goes on."""


class Running(NamedTuple):
    """A stage that runs now. done, total: of its `unit`, where it says so. left_s: measured where `per_second` is known, else what an earlier
    run of the stage took (`like`); None where neither is known."""

    experiment: str
    stage: str
    key: str
    seconds: float
    host: str
    device: str
    label: str | None
    done: float | None
    total: float | None
    unit: str | None
    per_second: float | None
    note: str | None
    left_s: float | None
    like: str | None

    @property
    def share(self):
        """How much of it is done, 0 to 1; None where that is not known."""
        return min(1.0, self.done / self.total) if self.total and self.done is not None else None


def is_known():
    """True where the app knows the workspace, and so what runs."""
    return flask.current_app.config.get(WORKSPACE) is not None


def running():
    """The `Running` stages of the app that answers, the newest first."""
    root = flask.current_app.config.get(WORKSPACE)
    return [] if root is None else of_workspace(root)


def of_workspace(root):
    """The `Running` stages of a workspace, the newest first."""
    workspace = Workspace(root)
    known = _records(workspace)
    return [_running(workspace, record, known) for record in reversed(known) if records.is_running(record)]


def is_busy():
    """True while a process is there that made one of the last records: between two stages of a run nothing runs."""
    root = flask.current_app.config.get(WORKSPACE)
    return root is not None and any(
        record["host"] == platform.node() and records.is_alive(record) for record in _records(Workspace(root))[-LAST:]
    )


def in_step(rows):
    """Rows of named query page_runs as the workspace has them now: the database learns of a stage's end later. Runs that it does not know
    come first, the newest spec before older ones."""
    root = flask.current_app.config.get(WORKSPACE)
    now = {record["run_id"]: _told(record) for record in _records(Workspace(root))} if root else {}
    new = [now[run_id] for run_id in now.keys() - {row["run_id"] for row in rows}]
    specs = {row["spec_hash"]: {name: row[name] for name in ("sweep", "swept", "spec_yaml", "created_at")} for row in rows}
    unknown = dict.fromkeys(("sweep", "swept", "spec_yaml", "created_at", "dict_id"))
    new = [unknown | row | specs.get(row["spec_hash"], {}) for row in new]
    last = {row["spec_hash"]: max(one["started_at"] for one in new if one["spec_hash"] == row["spec_hash"]) for row in new}
    new.sort(key=lambda row: (row["started_at"], row["run_id"]))
    new.sort(key=lambda row: last[row["spec_hash"]], reverse=True)  # stable: of one spec the first run is still first
    return new + [row | {name: now[row["run_id"]][name] for name in STEPS} if row["run_id"] in now else row for row in rows]


def trainings(rows):
    """Rows of named query page_in_training that do not run, their status as the workspace has it now."""
    root = flask.current_app.config.get(WORKSPACE)
    last = {record["key"]: _told(record) for record in _records(Workspace(root)) if record["stage"] == "train"} if root else {}
    now = [row | {name: last[row["key"]][name] for name in ("status", "error")} if row["key"] in last else row for row in rows]
    return [row for row in now if row["status"] != "running" or row["key"] not in last]


def _told(record):
    """A run record as a row of named query page_runs, as far as it tells; a run that is not there any more was killed."""
    row = {name: record.get(name) for name in ("run_id", "experiment", "spec_hash", "stage", "key", "host", "device", *STEPS)}
    started = datetime.fromisoformat(record["started_at"]).astimezone(UTC).replace(tzinfo=None)
    row |= {
        "started_at": started,
        "versions": json.dumps(record.get("versions") or {}),
        "cached": record["status"] == "done" and record["seconds"] == 0,
    }
    if record["status"] == "running" and not records.is_running(record):
        row |= {"status": "killed", "error": records.KILLED}
    return row


def _records(workspace):
    """Run records, oldest first. Damaged ones are left to commands, which set them aside."""
    found = []
    for path in (workspace.root / "runs").glob("*.json"):
        try:
            found.append(_record(path, path.stat().st_mtime_ns))
        except (OSError, ValueError):
            continue
    return sorted((one for one in found if RUN_FIELDS <= one.keys()), key=lambda record: record["started_at"])


@lru_cache(maxsize=4096)
def _record(path, _version):
    return read_sealed(path)


def _running(workspace, record, known):
    seconds = (datetime.now(UTC) - datetime.fromisoformat(record["started_at"])).total_seconds()
    try:
        said = read_json(workspace.report_path(record["run_id"]))
    except CltdbError:  # it says nothing, or ended a moment ago
        said = {}
    rate, total, done = said.get("per_second"), said.get("total"), said.get("done")
    left, like = None, None
    if rate and total and seconds >= NOT_BEFORE_S:
        left = max(0.0, total - done) / rate
    elif earlier := _earlier(record, known):
        left, like = max(0.0, earlier.seconds - seconds), earlier.experiment
    named = {name: record.get(name) for name in ("experiment", "stage", "key", "host", "device")}
    told = {name: said.get(name) for name in ("label", "done", "total", "unit", "per_second", "note")}
    return Running(**named, **told, seconds=seconds, left_s=left, like=like)


def _earlier(record, known):
    """The `Duration` that earlier runs of the stage on this machine tell; None where none does."""
    work = record.get("work")
    if not work:
        return None
    item = SimpleNamespace(action="run", stage=record["stage"], parts=record["key_parts"])
    return estimates(record["experiment"], {record["stage"]: (work["n"], work["unit"])}, [item], known).get(record["stage"])
