"""Stages in several processes, started by `cltdb run` through DeepSpeed's launcher."""

import io
import json
import os
import platform
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import polars as pl
import pytest
from command_line import PATIENCE_S, ROOT, cltdb, said
from worlds import projects

from cltdb.__main__ import main
from cltdb.engine import launch
from cltdb.engine.section import Launch
from cltdb.engine.workspace import write_json
from cltdb.errors import CltdbError

SPEC = """
name: small
model: {id: toyworld}
activations: {text: [{toyworld: true}], context: 32, train_tokens: 8_000, heldout_tokens: 1_000, shard_tokens: 2_048, LAUNCH}
train: {n_features: 48, l0: 4, batch_tokens: 128, init_l0: 8, checkpoint_every_steps: 10, LAUNCH}
harvest: {tokens: 8_000, window: 16, top: 8, per_quantile: 6, pool_windows: 800, feature_edges: 0, LAUNCH}
explain: {features: {limit: 1_000}, LAUNCH}
attribute: {prompts: [{text: The capital of France is}, {text: The opposite of hot is}, {text: 3 plus 4 mod 10 is}], LAUNCH}
"""
TWO = "launch: {processes: 2}"


def project(folder, launched):
    return projects.new(folder, SPEC.replace(", LAUNCH", f", {launched}" if launched else ""))


@pytest.mark.parametrize(
    ("hosts", "settings", "found"),
    [
        (None, {}, r"train.launch.hostfile \(hosts\): found no such file; expected a line `NAME slots=N`"),
        ("a slots=4\nb\n", {"nodes": 2}, r"\(hosts\), line 2: found 'b'"),
        ("a slots=4\na slots=4\n", {"nodes": 2}, r"\(hosts\), line 2: found 'a' twice"),
        ("# none\n", {}, "found 0 machines of 1 slots or more; expected at least train.launch.nodes, 1"),
        ("a slots=4\nb slots=1\n", {"nodes": 2, "processes": 2}, "found 1 machines of 2 slots or more"),
        ("a slots=4\n\n# c\nb slots=2  # d\n", {"nodes": 2, "processes": 2}, None),
    ],
)
def test_a_host_file_is_read_before_anything_runs(tmp_path, hosts, settings, found):
    if hosts is not None:
        (tmp_path / "hosts").write_text(hosts)
    section = Launch(hostfile="hosts", **settings)
    if found is None:
        return launch.check_hosts("train", section, tmp_path)
    with pytest.raises(CltdbError, match=found):
        launch.check_hosts("train", section, tmp_path)


@pytest.mark.parametrize("stage", ["activations", "train", "harvest", "explain", "attribute"])
def test_plan_names_a_host_file_that_is_not_there(tmp_path, monkeypatch, capsys, stage):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text("name: small\nmodel: {id: toyworld}\nactivations: {text: [{toyworld: true}]}\n")
    assert main(["plan", "small.yaml", "--set", f"{stage}.launch.hostfile=gone"]) == 1
    assert f"{stage}.launch.hostfile (gone): found no such file" in capsys.readouterr().err


def test_what_the_launcher_says_of_itself_is_left_out(capfdbinary):
    stream = io.BytesIO(
        b"[2026-11-21 12:35:31,514] [WARNING] [runner.py:214:fetch_hostfile] Unable to find hostfile\n"
        b"train:  10%\rtrain:  20%\r[2026-11-21 12:35:31,519] [INFO] [launch.py:1:x] y\ncontinues at step 3\nlast"
    )
    kept = []
    launch._forward(io.BufferedReader(stream), kept)
    assert kept == ["train:  10%\r", "train:  20%\r", "continues at step 3\n", "last"]


def test_the_first_ranks_error_is_said(tmp_path):
    for rank, at in ((0, 20.0), (1, 10.0)):
        error = {"where": "train", "found": f"trouble of rank {rank}", "expected": "none", "do": "mend it", "at": at}
        write_json(tmp_path / f"error-{rank}.json", error)
    with pytest.raises(CltdbError, match="trouble of rank 1"):
        launch._raise_errors("train", tmp_path, 1, [])


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (9, r"exit status 9 \(the last words\)"),
        (247, r"SIGKILL, mostly sent by the system as memory ran out \(the last words\)"),  # the launcher's word for -9
        (-11, "SIGSEGV"),
        (134, "SIGABRT"),
        (200, "exit status 200"),
    ],
)
def test_how_a_rank_without_an_error_ended_is_said(tmp_path, status, said):
    with pytest.raises(CltdbError, match=f"found a process that ended with {said}.* do this: .* fewer train.launch.processes"):
        launch._raise_errors("train", tmp_path, status, ["the last words\n"])


@pytest.mark.parametrize("settings", [None, SimpleNamespace(launch=Launch())])
def test_one_process_goes_on_where_killed_ranks_stopped_and_leaves_nothing_of_them(tmp_path, settings):
    folder, seen = tmp_path / launch.FOLDER, []
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)", "cltdb.engine.launch"])
    while b"cltdb.engine.launch" not in command(left.pid):
        time.sleep(0.01)
    write_json(folder / "request.json", {})
    (folder / "rank-0.pid").write_text(f"{platform.node()} {left.pid}")
    stage = SimpleNamespace(section=settings, run=lambda job: seen.append((folder.exists(), left.wait(timeout=10))))
    launch.run_stage(SimpleNamespace(directory=tmp_path, stage=stage, settings=settings))
    assert seen == [(False, -signal.SIGKILL)]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    folders = [project(tmp_path / str(n), launched) for n, launched in ((1, None), (2, TWO)) if not (tmp_path / str(n)).mkdir()]
    for folder in folders:
        done = cltdb(folder, "run", "small.yaml", "--until", "train")
        assert done.returncode == 0, done.stderr
        done = cltdb(folder, "run", "small.yaml", "--only", "attribute")
        assert done.returncode == 0, done.stderr
        assert not list(folder.glob("artifacts/*/*/.launch"))
    graphs = [pl.read_parquet(folder / "artifacts/attribute/*/tables/graphs/*.parquet") for folder in folders]
    assert graphs[0]["graph_id"].to_list() == graphs[1]["graph_id"].to_list() and len(graphs[0]) == 3
    tables = [pl.read_parquet(folder / "artifacts/train/*/tables/metrics/*.parquet") for folder in folders]
    keys = ["name", "step", "layer"]
    both = tables[0].join(tables[1], on=keys, nulls_equal=True, suffix="_two")
    assert len(both) == len(tables[0]) == len(tables[1])
    assert ((both["value"] - both["value_two"]).abs() <= 1e-3 * both["value"].abs() + 1e-5).all()  # int8 may round otherwise
    assert {path.parent.name for path in folders[0].glob("artifacts/*/*/manifest.json")} == {
        path.parent.name for path in folders[1].glob("artifacts/*/*/manifest.json")
    }  # launch is in no key


@pytest.mark.slow
def test_two_processes_harvest_what_one_does(tmp_path):
    folder, tables = project(tmp_path, TWO), []
    for words in ([], ["--force", "harvest", "--set", "harvest.launch.processes=1"]):
        done = cltdb(folder, "run", "small.yaml", "--until", "harvest", *words)
        assert done.returncode == 0, done.stderr
        (artifact,) = folder.glob("artifacts/harvest/[0-9a-f]*")
        assert {"manifest.json", "tables", "pool.parquet"} <= {path.name for path in artifact.iterdir()}
        assert not {"checkpoints", "pool_parts", ".launch"} & {path.name for path in artifact.iterdir()}
        tables.append(pl.read_parquet(artifact / "tables/features/*.parquet"))
    assert tables[0]["density"].equals(tables[1]["density"]) and tables[0]["density"].max() > 0
    for name in ("max_activation", "mean_activation"):
        assert (tables[0][name] - tables[1][name]).abs().max() < 1e-4


@pytest.mark.slow
def test_two_processes_explain_what_one_does(tmp_path):
    folder, tables = project(tmp_path, TWO), []
    for words in ([], ["--force", "explain", "--set", "explain.launch.processes=1"]):
        done = cltdb(folder, "run", "small.yaml", "--until", "explain", *words)
        assert done.returncode == 0, done.stderr
        (artifact,) = folder.glob("artifacts/explain/[0-9a-f]*")
        assert {"manifest.json", "summary.json", "tables"} <= {path.name for path in artifact.iterdir()}
        rows = pl.read_parquet(artifact / "tables/scores/*.parquet")
        tables.append(rows.sort("layer", "feature", "side", "explainer", "scorer"))
    assert len(tables[0]) and tables[0].equals(tables[1])


@pytest.mark.slow
def test_an_error_in_the_ranks_is_one_line(tmp_path):
    folder = project(tmp_path, TWO)
    done = cltdb(folder, "run", "small.yaml", "--until", "train", "--set", "train.learning_rate=1e30")
    assert done.returncode == 1 and "a loss that is not finite" in said(done)


@pytest.mark.slow
def test_ranks_end_with_the_process_that_asked_for_them(tmp_path):
    folder = project(tmp_path, TWO)
    words = [sys.executable, "-m", "cltdb", "run", "small.yaml", "--until", "train", "--set", "train.epochs=500"]
    run = subprocess.Popen(words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 5 * PATIENCE_S  # at a load of 18 the ranks had no checkpoint after 120 s
    while not list(folder.glob("artifacts/train/*.partial/checkpoints/*/state.json")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    pids = [int(path.read_text().split()[1]) for path in folder.glob("artifacts/train/*.partial/.launch/rank-*.pid")]
    assert len(pids) == 2
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + PATIENCE_S
    while any(b"cltdb.engine.launch" in command(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_a_launch_that_does_not_fit_is_refused(tmp_path):
    folder = project(tmp_path, "launch: {processes: 3}")
    assert "expected tokens that the 3 parts of a batch share evenly" in said(cltdb(folder, "plan", "small.yaml"))
    shards = json.dumps({"processes": 2, "feature_parallel": 2})
    done = cltdb(folder, "plan", "small.yaml", "--set", f"train.launch={shards}", "--set", "train.n_features=47")
    assert "expected a number that divides n_features 47" in said(done)
