"""A sweep from the command line: planned, run with a point that fails, compared, seen in the database; metrics while training.

The stages are stand-ins that take no time; what is tested is who runs when, what is recorded and what is said.
"""

import json
import os
import signal
import threading
from dataclasses import replace

import pyarrow as pa
import pytest
from command_line import in_one_form
from worlds import projects

import cltdb
from cltdb.__main__ import main
from cltdb.database import store
from cltdb.database.artifacts import rebuild_database
from cltdb.engine import run as runner
from cltdb.engine.plan import plan
from cltdb.engine.workspace import Workspace, write_json, write_parquet
from cltdb.errors import CltdbError, NonFiniteError
from cltdb.metrics import write_metrics
from cltdb.spec import load, load_points
from cltdb.stages import STAGES
from cltdb.train import trained

SPEC = """name: small
model: {id: toyworld}
activations: {text: [{toyworld: true}], context: 64}
train: {n_features: 48}
sweep:
  train.l0: [3, 4, 5]
  harvest.top: [6, 7]
"""
NAMES = [f"small-l0_{l0}-top_{top}" for l0 in (3, 4, 5) for top in (6, 7)]


def dict_id(job):
    return f"{job.experiment.name}-clt-{job.key[:8]}"


def fake_train(job):
    l0 = job.experiment.train.l0
    if l0 == 4:
        raise NonFiniteError("train", found="a loss that is not finite at step 7", expected="a finite loss", do="lower the rate")
    row = {
        "dict_id": dict_id(job), "experiment": job.experiment.name, "model_id": "toyworld", "kind": "clt",
        "activation": "relu", "n_layers": 2, "n_features": 48,
    }  # fmt: skip
    write_json(job.directory / "dictionary.json", {"dict_id": row["dict_id"]})
    write_parquet(job.directory / "tables/dictionaries/dictionary.parquet", pa.Table.from_pylist([row]))


def fake_activations(job):
    write_json(job.directory / "cache.json", {"shards": []})


def fake_evaluate(job):
    l0 = job.experiment.train.l0
    rows = [(0, None, name, value) for name, value in (("l0", l0), ("fvu", 1 / l0), ("dead_frac", 0.25), ("ce_recovered", 0.5))]
    write_metrics(
        job.directory / "tables/metrics/evaluate.parquet",
        dict_id=trained.dict_id(job.inputs["train"]),
        stage="evaluate",
        rows=rows,
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Folder of a sweep of six points, in which stages do next to nothing and l0 4 fails; `ran` lists (stage, key)."""
    projects.new(tmp_path, SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cltdb.log.setup", lambda **_: None)
    ran = []
    work = {"activations": fake_activations, "train": fake_train, "evaluate": fake_evaluate, "database": STAGES["database"].run}
    for name, stage in STAGES.items():

        def runs(job, name=name):
            ran.append((name, job.key))
            work.get(name, lambda job: None)(job)

        monkeypatch.setitem(STAGES, name, replace(stage, run=runs))
    return tmp_path, ran


def test_points_share_what_is_shared_and_one_that_fails_does_not_stop_the_others(project, capsys):
    folder, ran = project
    assert main(["run", "small.yaml"]) == 1
    made = [stage for stage, _ in ran]
    assert (made.count("activations"), made.count("train"), made.count("evaluate"), made.count("harvest")) == (1, 4, 2, 4)
    said = capsys.readouterr()
    failed = said.err.splitlines()
    assert [line.split(": ")[1] for line in failed] == NAMES[2:4] and all(
        "not finite at step 7" in in_one_form(line) for line in failed
    )
    header, *table = [line.split() for line in said.out.splitlines() if line.startswith(("point  ", *(f"{n}  " for n in NAMES)))]
    assert header == ["point", "FVU", "L0", "dead", "CE", "recovered", "seconds"]
    assert [row[0] for row in table] == NAMES
    assert table[0][1:5] == ["0.3333", "3.00", "25.0%", "50.0%"] and table[2][1:] == ["failed"] and table[5][1] == "0.2000"
    statuses = {(r["experiment"], r["stage"], r["status"]) for r in Workspace(folder / "artifacts").run_records()}
    assert {(name, "train", "failed" if "_4" in name else "done") for name in NAMES} <= statuses

    database = cltdb.open(folder / "cltdb.duckdb")
    frontier = database.query("frontier", sweep="small")
    assert [json.loads(swept) for swept in frontier["swept"]] == [
        {"train.l0": 3, "harvest.top": 6},
        {"train.l0": 5, "harvest.top": 6},
    ]
    assert database.sql("SELECT DISTINCT sweep FROM experiments")["sweep"].to_list() == ["small"]
    assert "cltdb sql --query frontier -p sweep=small" in said.out
    main(["run", "small.yaml", "--until", "train"])
    assert "frontier" not in capsys.readouterr().out  # which loads nothing into the database

    ran.clear()
    assert main(["run", "small.yaml", "--set", "sweep.train.l0=[3, 5]"]) == 0 and ran == []


def test_a_point_whose_reference_failed_goes_without_the_comparison_and_into_the_database(project):
    folder, ran = project
    points = load_points("small.yaml", overrides=["sweep={train.l0: [4, 3, 5]}", "match={correlation: false}"])
    results = runner.run_points(points)
    assert [result.error is None for result in results] == [False, True, True]
    assert {stage for stage, _ in ran if stage in ("match", "database", "harvest")} == {"database", "harvest"}
    assert cltdb.open(folder / "cltdb.duckdb").sql("SELECT count(*) FROM dictionaries").rows() == [(2,)]
    assert [result.action for result in runner.run(points[1], only="database")] == ["cached"]
    reasons = {item.stage: item.reason for item in plan(points[1])}
    assert reasons["match"] == "new"  # the point that it waits for may still be made


def test_an_interrupt_within_a_query_ends_the_run(project, monkeypatch):
    folder, ran = project

    def asking(job):
        fake_train(job)
        with store.connect(folder / "cltdb.duckdb", write=True) as connection:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            connection.execute("SELECT sum(i) FROM range(100000000000) AS t(i)")

    monkeypatch.setitem(STAGES, "train", replace(STAGES["train"], run=asking))
    with pytest.raises(KeyboardInterrupt):
        runner.run_points(load_points("small.yaml"))
    [record] = [record for record in Workspace(folder / "artifacts").run_records() if record["stage"] == "train"]
    assert (record["experiment"], record["status"], record["error"]) == (NAMES[0], "killed", "interrupted")


def test_a_forced_stage_is_made_once_for_all_points(project):
    _, ran = project
    points = load_points("small.yaml", overrides=["sweep.train.l0=[3, 5]"])
    runner.run_points(points, until="train")
    ran.clear()
    assert all(result.error is None for result in runner.run_points(points, until="train", force=["activations", "train"]))
    assert sorted(stage for stage, _ in ran) == ["activations", "train", "train"]


def test_what_is_wrong_from_the_start_stops_the_sweep_before_it(project):
    _, ran = project
    points = load_points("small.yaml", overrides=["sweep={evaluate.tokens: [1000, 900_000_000]}"])
    with pytest.raises(CltdbError, match=f"evaluate.tokens .point {points[1].experiment.name}.: found 900,000,000"):
        runner.run_points(points)
    assert ran == []


def test_plan_of_a_sweep_has_a_heading_per_point_and_says_what_is_shared(project, capsys):
    assert main(["plan", "small.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("# ")] == [f"# {name}" for name in NAMES] and len(lines) == 6 * 9
    assert (
        lines[1] == "model\trun\tnew"
        and lines[2].startswith("activations\trun\tnew; a cache of ")
        and lines[3] == "train\trun\tnew"
    )
    second = lines[9:18]
    assert second[3] == f"train\tcached\tshared with {NAMES[0]}" and second[5] == "harvest\trun\tnew"
    assert main(["plan", "small.yaml", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (
        len(planned) == 48
        and planned[8]["point"] == NAMES[1]
        and set(planned[0]) == {"point", "stage", "action", "reason", "key"}
    )
    assert main(["plan", "small.yaml", "--point", NAMES[5]]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert main(["plan", "small.yaml", "--set", "sweep={}", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)[0]) == {"stage", "action", "reason", "key"}


def test_status_of_a_sweep_lists_its_points(project, capsys):
    main(["run", "small.yaml", "--until", "train"])
    runner.run(load("small.yaml", overrides=["sweep={}"]), until="model")
    capsys.readouterr()
    assert main(["status", "small.yaml"]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert heads.split()[:4] == ["experiment", "stage", "status", "seconds"]
    assert {line.index(" done ") + 1 for line in lines if " done " in line} == {heads.index("status")}
    assert {line.split()[0] for line in lines} == set(NAMES) and len(
        {line.index(" train ") for line in lines if " train " in line}
    ) == 1


@pytest.mark.parametrize("command", [["attribute"], ["intervene", "--feature", "0:1@1=0"]])
def test_commands_for_one_experiment_ask_which_point(project, command, capsys):
    assert main([command[0], "small.yaml", "--prompt", "x", *command[1:]]) == 1
    said = in_one_form(capsys.readouterr().err)
    assert "6 points" in said and NAMES[0] in said and "--point NAME" in said


def test_metrics_are_in_the_database_while_training_runs(project, monkeypatch):
    folder, _ = project
    seen = []

    def training(job):
        publish = job.publish
        for last in (2, 4):
            rows = [(step, None, "loss", 1 / step) for step in (last - 1, last)]
            path = job.directory / f"tables/metrics/train-{last:08d}.parquet"
            write_metrics(path, dict_id=dict_id(job), stage="train", rows=rows)
            publish(job.directory)
            database = cltdb.open(folder / "cltdb.duckdb")
            shown = database.query("page_in_training").select("dict_id", "experiment", "status", "step").rows()
            seen.append((shown, database.metrics(dict_id(job))["step"].to_list()))
        if not (folder / "killed").exists():
            (folder / "killed").touch()
            raise KeyboardInterrupt
        fake_train(job)

    monkeypatch.setitem(STAGES, "train", replace(STAGES["train"], run=training))
    loaded = load("small.yaml", point=NAMES[0])
    with pytest.raises(KeyboardInterrupt):
        runner.run(loaded)
    runner.run(loaded)
    [(row, first), (_, second)] = seen[:2]
    assert row == [(f"{NAMES[0]}-clt-{row[0][0][-8:]}", NAMES[0], "running", 2)] and (first, second) == ([1, 2], [1, 2, 3, 4])
    database = folder / "cltdb.duckdb"
    before = rows_of(database)
    assert [row[2] for row in before["metrics"] if row[1] == "train"] == [1, 2, 3, 4]
    assert before["experiments"][0][3:] == ("small", '{"train.l0": 3, "harvest.top": 6}')
    rebuild_database(loaded.project)
    assert rows_of(database) == before


def rows_of(database):
    """{table: sorted rows} without times."""
    with_times = cltdb.open(database)
    names = [name for name in with_times.tables()["table"].unique() if name not in ("stage_runs", "feature_cards", "named_edges")]
    return {
        name: sorted(map(_key, with_times.sql(f"SELECT COLUMNS(lambda c: NOT ends_with(c, '_at')) FROM {name}").rows()))
        for name in names
    }


def _key(row):
    return tuple("" if value is None else value for value in row)
