"""What runs now. The database learns of a stage when its run ends; until then the records of the workspace tell of it.

Reads: <workspace>/runs/*.json, and beside the record of a stage that runs how far it is (`log.reported`).
"""

from datetime import UTC, datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import NamedTuple

import flask

from cltdb.engine.durations import estimates
from cltdb.engine.integrity import read_sealed
from cltdb.engine.records import is_running
from cltdb.engine.workspace import Workspace, read_json
from cltdb.errors import CltdbError

WORKSPACE = "CLTDB_WORKSPACE"
"""Where an app keeps the path of the workspace that fills its database, None where it has none: a key of `app.server.config`."""
CLOSING = "CLTDB_CLOSING"
"""Where an app keeps a function of {stage: directory} that says what `cltdb run` says at its end; None where it has none."""
NOT_BEFORE_S = 20
"""A rate that is measured over less than this says little."""


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
    records = _records(workspace)
    alive = sorted((one for one in records if is_running(one)), key=lambda record: record["started_at"], reverse=True)
    return [_running(workspace, record, records) for record in alive]


def _records(workspace):
    """Run records, oldest first. Damaged ones are left to commands, which set them aside."""
    found = []
    for path in (workspace.root / "runs").glob("*.json"):
        try:
            found.append(_record(path, path.stat().st_mtime_ns))
        except (OSError, ValueError):
            continue
    return sorted((one for one in found if "started_at" in one), key=lambda record: record["started_at"])


@lru_cache(maxsize=4096)
def _record(path, _version):
    return read_sealed(path)


def _running(workspace, record, records):
    seconds = (datetime.now(UTC) - datetime.fromisoformat(record["started_at"])).total_seconds()
    try:
        said = read_json(workspace.report_path(record["run_id"]))
    except CltdbError:  # it says nothing, or ended a moment ago
        said = {}
    rate, total, done = said.get("per_second"), said.get("total"), said.get("done")
    left, like = None, None
    if rate and total and seconds >= NOT_BEFORE_S:
        left = max(0.0, total - done) / rate
    elif known := _earlier(record, records):
        left, like = max(0.0, known.seconds - seconds), known.experiment
    named = {name: record.get(name) for name in ("experiment", "stage", "key", "host", "device")}
    told = {name: said.get(name) for name in ("label", "done", "total", "unit", "per_second", "note")}
    return Running(**named, **told, seconds=seconds, left_s=left, like=like)


def _earlier(record, records):
    """The `Duration` that earlier runs of the stage on this machine tell; None where none does."""
    work = record.get("work")
    if not work:
        return None
    item = SimpleNamespace(action="run", stage=record["stage"], parts=record["key_parts"])
    return estimates(record["experiment"], {record["stage"]: (work["n"], work["unit"])}, [item], records).get(record["stage"])
