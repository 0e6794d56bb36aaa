"""What runs now, what ran, what it takes: the pages of runs, and the workspace that they read."""

import json
import os
import platform
from datetime import UTC, datetime, timedelta

import pytest

from cltdb.engine import records
from cltdb.engine.integrity import sealed
from cltdb.engine.workspace import Workspace
from dashboards.runs import disk, underway


def write_run(root, stage, *, status="running", began_s=100, seconds=None, work=(1000, "tokens"), **more):
    """A run record of experiment `toy` that this process began so many seconds ago."""
    record = {
        "run_id": f"toy-{stage}-{status}-{began_s}", "experiment": "toy", "spec_hash": "0a1b", "stage": stage, "key": f"{stage}-key",
        "status": status, "started_at": (datetime.now(UTC) - timedelta(seconds=began_s)).isoformat(), "seconds": seconds,
        "host": platform.node(), "device": "cpu", "error": None, "pid": os.getpid(), "boot_id": records._boot_id(), "key_parts": {},
        "work": work and {"n": work[0], "unit": work[1]}, **more,
    }  # fmt: skip
    Workspace(root).save_run(record)
    return record


@pytest.fixture
def workspace(tmp_path):
    return tmp_path / "artifacts"


def test_a_stage_that_runs_tells_how_far_it_is(workspace, monkeypatch):
    monkeypatch.setattr(records, "_is_alive", lambda record: record["pid"] == os.getpid())
    record = write_run(workspace, "train")
    write_run(workspace, "harvest", pid=1)  # killed
    write_run(workspace, "model", status="done", seconds=1.0)
    (workspace / "runs/damaged.json").write_text("{")
    [found] = underway.of_workspace(workspace)
    assert (found.experiment, found.stage, found.done, found.share, found.left_s) == ("toy", "train", None, None, None)
    assert 99 < found.seconds < 130
    said = {"label": "train", "total": 400, "unit": "steps", "done": 100, "per_second": 2.0, "note": "fvu 0.2"}
    Workspace(workspace).report_path(record["run_id"]).write_text(json.dumps(said))
    [found] = underway.of_workspace(workspace)
    assert (found.share, found.left_s, found.note, found.like) == (0.25, 150.0, "fvu 0.2", None)


def test_without_a_rate_the_time_left_is_that_of_an_earlier_run(workspace, monkeypatch):
    monkeypatch.setattr(records, "_is_alive", lambda record: True)
    write_run(workspace, "activations", status="done", began_s=5000, seconds=600.0, work=(500, "tokens"))
    write_run(workspace, "activations", began_s=100)
    [found] = underway.of_workspace(workspace)
    assert found.left_s == pytest.approx(1100, abs=20) and found.like == "toy"


def test_disk_is_what_manifests_and_unfinished_folders_say(workspace, tmp_path):
    made = Workspace(workspace)
    partial = made.partial("train", "aa")
    partial.mkdir(parents=True)
    (partial / "x.bin").write_bytes(b"x" * 1000)
    assert disk.usage(workspace, tmp_path / "no.duckdb").artifacts == {("train", "aa"): 1000}
    made.finish_artifact("train", "aa", {})
    earlier = made.artifact("model", "bb")  # of a cltdb that wrote no hashes
    earlier.mkdir(parents=True)
    (earlier / "manifest.json").write_text(json.dumps(sealed({"stage": "model"})))
    (earlier / "y.bin").write_bytes(b"y" * 50)
    (workspace / "units/graphs").mkdir(parents=True)
    (workspace / "units/graphs/z").write_bytes(b"z" * 7)
    found = disk.usage(workspace, earlier / "y.bin")
    assert found.artifacts[("train", "aa")] == 1000 and found.artifacts[("model", "bb")] > 50
    assert found.others["units"] == 7 and found.others["database"] == 50 and found.total == sum(found.artifacts.values()) + 57
    assert found.free > 0
