"""What runs now, what ran, what it takes: the pages of runs, and the workspace that they read."""

import json
import os
import platform
import time
from datetime import UTC, datetime, timedelta

import pytest
from visit import by_id, client_of, opened, page_text, show, texts
from worlds import capitals_experiment as world

from cltdb.engine import records
from cltdb.engine.integrity import sealed
from cltdb.engine.workspace import Workspace
from dashboards import urls
from dashboards.pages import overview, runs
from dashboards.runs import compare, disk, live, parts, underway


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
    monkeypatch.setattr(records, "is_alive", lambda record: record["pid"] == os.getpid())
    start, record = time.monotonic(), write_run(workspace, "train")
    write_run(workspace, "harvest", pid=1)  # killed
    write_run(workspace, "model", status="done", seconds=1.0)
    (workspace / "runs/damaged.json").write_text("{")
    [found] = underway.of_workspace(workspace)
    assert 99 < found.seconds < 101 + time.monotonic() - start
    assert (found.experiment, found.stage, found.done, found.share, found.left_s) == ("toy", "train", None, None, None)
    said = {"label": "train", "total": 400, "unit": "steps", "done": 100, "per_second": 2.0, "note": "fvu 0.2"}
    Workspace(workspace).report_path(record["run_id"]).write_text(json.dumps(said))
    [found] = underway.of_workspace(workspace)
    assert (found.share, found.left_s, found.note, found.like) == (0.25, 150.0, "fvu 0.2", None)


def test_without_a_rate_the_time_left_is_that_of_an_earlier_run(workspace, monkeypatch):
    monkeypatch.setattr(records, "is_alive", lambda record: True)
    write_run(workspace, "activations", status="done", began_s=5000, seconds=600.0, work=(500, "tokens"))
    write_run(workspace, "activations", began_s=100)
    [found] = underway.of_workspace(workspace)
    assert found.left_s == pytest.approx(1200 - found.seconds) and found.like == "toy"


def test_disk_is_what_manifests_and_unfinished_folders_say(workspace, tmp_path, database):
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
    asked = [{"stage": "train", "key": "aa"}, {"stage": "train", "key": "gone"}]
    for root, sizes in ((workspace, {("train", "aa"): 1000}), (None, None)):
        with opened(database, workspace=root).application.app_context():
            assert disk.sizes(asked) == sizes


def run_of(stage, key="k", *, began=1, seconds=5.0, status="done", **more):
    """A row of named query page_runs."""
    return {
        "run_id": f"{stage}{began}", "experiment": "toy", "spec_hash": "s", "sweep": None, "spec_yaml": "name: toy", "stage": stage, "key": key,
        "status": status, "cached": status == "done" and seconds == 0, "started_at": datetime(2026, 1, 1, 0, began), "seconds": seconds,
        "host": "h", "device": "cpu", "versions": '{"cltdb": "0.1.0"}', "error": None, "dict_id": None, **more,
    }  # fmt: skip


def test_of_a_stage_the_last_run_counts_but_for_notes_that_its_artifact_was_there():
    rows = [
        run_of("train", began=1, status="failed", error="one"), run_of("train", began=2), run_of("train", began=3, seconds=0.0),
        run_of("model", began=4, seconds=0.0), run_of("harvest", began=5), run_of("harvest", key="other", began=6, seconds=0.0),
    ]  # fmt: skip
    last = parts.last_runs(rows)
    assert [(row["stage"], row["started_at"].minute) for row in last] == [("train", 2), ("model", 4), ("harvest", 6)]
    shown = texts(parts.stages(last, disk.Usage({("train", "k"): 2_500_000}, {}, 0)))
    assert "train done 2026-01-01 00:02 5.0 s 2.5 MB" in shown and "model cached" in shown
    assert "train failed 2026-01-01 00:01 5.0 s one" in texts(parts.attempts(rows, last)) and parts.attempts(last, last) is None


def test_the_newest_spec_of_an_experiment_stands_for_it():
    rows = [run_of("train", spec_hash="new"), run_of("train", spec_hash="old"), run_of("train", experiment="b")]
    assert {name: [row["spec_hash"] for row in of] for name, of in parts.newest(rows).items()} == {"toy": ["new"], "b": ["s"]}


def test_a_line_of_an_experiment_has_its_stages_disk_and_cost():
    found = {"toy": [run_of("train", dict_id="d"), run_of("harvest", key="h", began=2)], "b": [run_of("train", status="failed")]}
    asked = [
        {"dict_id": "d", "cost_usd": 0.5, "n_unknown_cost": 0},
        {"dict_id": "d", "cost_usd": None, "n_unknown_cost": 2},
        {"dict_id": "e", "cost_usd": 9.0, "n_unknown_cost": 0},
    ]
    sizes = {("train", "k"): 2_000_000, ("harvest", "h"): 500_000}
    shown = texts(parts.experiments(found, {"d": {"fvu": 0.1, "l0": 6.0}}, sizes, asked))
    assert (
        "2 done 2026-01-01 00:02 10 s 2.5 MB $0.50 (2 unknown) d 0.1 6" in shown
        and "train failed 2026-01-01 00:01 5.0 s 2 MB –" in shown
    )
    assert "10 s – $0.50" in texts(parts.experiments(found, {}, None, asked))


def test_specs_side_by_side():
    differences = {
        "b": [{"key": "train.l0", "value": "6", "other_value": "8"}, {"key": "seed", "value": "0", "other_value": None}],
        "c": [{"key": "train.kind", "value": None, "other_value": "plt"}],
    }
    shown = texts(compare.spec_table(["a", "b", "c"], differences))
    assert "key a b c" in shown
    assert "seed 0 default 0" in shown and "train.kind default default plt" in shown and "train.l0 6 8 6" in shown
    assert "say the same" in texts(compare.spec_table(["a", "b"], {"b": []}))
    numbers = texts(
        compare.metric_table(["a", "b"], {"a": {"fvu": 0.1, "l0": 6.0}, "b": {"fvu": 0.2}}, {"a": {"train": 3.0}, "b": {}})
    )
    assert "0.1 0.2" in numbers and "6 –" in numbers and "time of train 3.0 s –" in numbers


def test_pages_of_runs(database):
    listed = page_text(database, urls.RUNS)
    for expected in (
        "toy",
        "7 done, database failed",
        world.DICT,
        "zoo-kind_clt-activation_relu-l0_4",
        "1 min 04 s",
        "0 done, train began",
    ):
        assert expected in listed
    of_sweep = page_text(database, urls.RUNS, "?sweep=zoo")
    assert "Runs of zoo" in of_sweep and world.DICT not in of_sweep
    text = page_text(database, urls.run_url("toy"))
    for expected in (
        "27 min 18 s",
        "failed",
        world.HOSTILE,
        "name: toy",
        f"features of {world.DICT}",
        "The capital of France is",
    ):
        assert expected in text.replace("The capital of France", "The capital of France is")
    chosen = by_id(show(database, urls.RUNS, "?compare=toy,nope,zoo"))[runs.COMPARE]
    assert chosen["value"] == ["toy", "zoo"] and len(chosen["options"]) == 14


def test_experiments_are_compared(database):
    with client_of(database).application.app_context():
        names = ["toy", "zoo-kind_clt-activation_relu-l0_4", "zoo"]
        shown, metrics, hidden, url = runs.contrast(names)
        text = texts(shown)
        assert "name toy" in text and "0.08" in text and "0.144" in text and not hidden and "fvu" in metrics
        assert url == urls.runs_url(compare=",".join(names))
        assert [trace.name for trace in runs.draw(names, "fvu").data] == [
            world.DICT,
            "zoo-kind_clt-activation_relu-l0_4-clt-00000003",
        ]
        assert "are compared." not in text
        assert "Of the 9 that are chosen, the first 8 are compared." in texts(runs.contrast([*names, *names, *names])[0])
        few, _, hidden, _ = runs.contrast(["toy"])
        assert "two experiments" in texts(few) and hidden


def test_what_requests_cost():
    asked = {
        "purpose": "explain:llm", "model": "m", "n_requests": 1200, "n_unusable": 1, "n_failed": 2, "n_skipped_budget": 3, "prompt_tokens": 10,
        "completion_tokens": None, "cost_usd": 0.1234, "n_unknown_cost": 4, "commonest_error": "late\u202e",
    }  # fmt: skip
    assert "explain:llm m 1,200 6 10 – $0.12 (4 unknown) late\\u202e" in texts(parts.costs([asked]))
    assert [parts.dollars(value) for value in (None, 0.0, 0.00012, 1234.5)] == ["–", "$0", "$0.00012", "$1,234.50"]


def test_a_training_that_does_not_run_any_more():
    row = {"dict_id": "d", "step": 400, "fvu": 0.1, "l0": 6.0, "dead_frac": 0.0, "error": None, "status": "running"}
    assert "in training when its rows were written · step 400" in texts(parts.training_card(row))
    assert "training was ended" in texts(parts.training_card({**row, "status": "killed"}))
    assert "trained; its stage database has not run" in texts(parts.training_card({**row, "status": "done"}))


@pytest.fixture
def under_way(workspace, monkeypatch):
    """A workspace in which a stage runs."""
    monkeypatch.setattr(records, "is_alive", lambda record: record["pid"] == os.getpid())
    record = write_run(workspace, "train")
    said = {"label": "train", "total": 400, "unit": "steps", "done": 100, "per_second": 2.0, "note": "fvu 0.2 l0 8"}
    Workspace(workspace).report_path(record["run_id"]).write_text(json.dumps(said))
    return record


def test_a_first_run_shows_before_there_is_a_database(workspace, under_way, tmp_path):
    client = opened(tmp_path / "no.duckdb", workspace=workspace)
    for url in ("/", urls.RUNS, urls.run_url("toy")):
        found = show(None, url, client=client)
        assert (
            "100 of 400 steps · fvu 0.2 l0 8" in texts(found) and "2 min 30 s" in texts(found) and "under way" in texts(found)
        ), url
        assert not by_id(found)[live.TICK]["disabled"]
    Workspace(workspace).save_run(under_way | {"status": "done", "seconds": 1.0})
    found = show(None, "/", client=client)
    assert "cltdb run" in texts(found) and not by_id(found)[live.TICK]["disabled"], "a page that waits for a first run"


def test_live_parts_stop_when_nothing_runs(workspace, under_way, database, monkeypatch):
    client = opened(database, workspace=workspace)
    found = by_id(show(None, "/", client=client))
    assert found[live.CHANGED]["data"] == [["toy", "train", "train-key"]] and not found[live.TICK]["disabled"]
    with client.application.test_request_context():
        cards, changed, disabled = runs.refresh(1, [["toy", "train", "train-key"]], None)
        assert "100 of 400 steps" in texts(cards) and changed is runs.no_update and not disabled
        assert runs.refresh(1, [live.BETWEEN], "other") == ([], runs.no_update, False)
        Workspace(workspace).save_run(under_way | {"status": "failed", "seconds": 1.0})
        cards, known, disabled = runs.refresh(1, [["toy", "train", "train-key"]], None)
        assert (cards, disabled) == ([], False) and known, "a next stage may begin"
        assert runs.refresh(2, known, None) == ([], runs.no_update, False)
        monkeypatch.setattr(records, "is_alive", lambda record: False)
        assert runs.refresh(3, known, None) == ([], [], True)
        assert runs.refresh(1, [], None) == ([], runs.no_update, False), "a page that waits for a first run"
        shown, measured, value, hidden = overview.follow([], world.OTHER_DICT)
        assert world.DICT in texts(shown) and value == world.OTHER_DICT and world.IN_TRAINING in measured and not hidden
        shown, names = runs.follow([], "zoo")
        assert world.DICT not in texts(shown) and names and "toy" not in names, "the page of a sweep stays one"
    assert by_id(show(None, "/", client=client))[live.TICK]["disabled"]


def test_what_a_run_said_at_its_end(workspace, database):
    for stage in world.STAGES[:3]:
        Workspace(workspace).artifact(stage, f"{stage}-key").mkdir(parents=True)
    made = []
    client = opened(database, workspace=workspace, closing=lambda found: made.append(found) or ["dictionary <b>toy</b>"])
    assert "What it says at its end dictionary <b>toy</b>" in texts(show(None, urls.run_url("toy"), client=client))
    assert made == [{stage: workspace / stage / f"{stage}-key" for stage in world.STAGES[:3]}]
    assert "What it says" not in page_text(database, urls.run_url("toy"))


def test_stages_are_as_the_workspace_has_them_now(workspace, database, monkeypatch):
    """The database learns of the end of a stage when a run ends."""
    monkeypatch.setattr(records, "is_alive", lambda record: record["pid"] == os.getpid())
    known = {"experiment": "toy", "spec_hash": "0a1b2c3d4e"}
    write_run(workspace, "train", **known, run_id="run-train", status="failed", seconds=7.0, error="no room")
    write_run(workspace, "harvest", **known, began_s=50)
    write_run(workspace, "explain", **known, began_s=90, pid=1)
    write_run(workspace, "train", experiment="new", key="unfinished-key", pid=1)
    client = opened(database, workspace=workspace)
    text = texts(show(None, urls.run_url("toy"), client=client))
    assert "train failed" in text and "no room" in text and "harvest running" in text and "explain killed" in text
    assert "evaluate done" in text, "which the workspace does not know"
    listed = " ".join(texts(show(None, urls.RUNS, client=client)).split())
    assert "new 0 done, train failed" in listed and "train, database, explain failed" in listed
    overview_text = texts(show(None, "/", client=client))
    assert "training was ended; run it again to continue · step 1,000" in overview_text
