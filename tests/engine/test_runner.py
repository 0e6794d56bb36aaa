"""Plan, run, resume, failure records, on a tiny random model up to evaluate."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from command_line import kill_when, no_larger_files
from worlds import models, projects

from cltdb.__main__ import _unforeseen, main
from cltdb.engine import records
from cltdb.engine import run as runner
from cltdb.engine.plan import plan, times
from cltdb.engine.workspace import Workspace, write_json
from cltdb.errors import CltdbError
from cltdb.spec import load
from cltdb.stages import STAGES

SPEC = """
name: tiny
model: {id: model}
activations: {text: [{files: [text.jsonl]}], context: 16, train_tokens: 640, heldout_tokens: 200, shard_tokens: 160, batch_seqs: 2}
train: {n_features: 24, l0: 3, batch_tokens: 64, init_l0: 6, checkpoint_every_steps: 4}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project of which nothing ran, and a copy of it that ran up to evaluate."""
    new = projects.with_model(tmp_path_factory.mktemp("new"), SPEC)
    finished = shutil.copytree(new, tmp_path_factory.mktemp("finished") / "project")
    assert run(finished) == dict.fromkeys(("model", "activations", "train", "evaluate"), "run")
    return new, finished


@pytest.fixture
def project(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "project")


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "finished")


def run(project, *overrides, **options):
    return {
        result.stage: result.action
        for result in runner.run(load(project / "tiny.yaml", overrides=overrides), **{"until": "evaluate", **options})
    }


def actions(project, *overrides):
    return {item.stage: (item.action, item.reason) for item in plan(load(project / "tiny.yaml", overrides=overrides))}


def test_a_second_run_does_nothing_and_a_change_reruns_what_depends_on_it(project, finished):
    assert set(actions(project).values()) == {("run", "new")}
    project = finished
    assert run(project) == dict.fromkeys(("model", "activations", "train", "evaluate"), "cached")
    planned = actions(project, "train.l0=4")
    assert planned["activations"] == ("cached", "finished")
    assert planned["train"] == ("run", "changed: train.l0") and planned["evaluate"] == ("run", "changed: input train")
    assert run(project, "evaluate.dense_above=0.2") == {
        "model": "cached",
        "activations": "cached",
        "train": "cached",
        "evaluate": "run",
    }
    assert run(project, force=["evaluate"])["evaluate"] == "run"
    (project / "text.jsonl").write_text((project / "text.jsonl").read_text() + "\n" + json.dumps({"text": "more"}))
    assert actions(project)["activations"] == ("run", "changed: files")


def test_who_may_not_write_finds_what_is_made_and_is_told_what_is_not(finished, monkeypatch):
    monkeypatch.setattr(Workspace, "is_read_only", lambda workspace: True)
    files = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert run(finished) == dict.fromkeys(("model", "activations", "train", "evaluate"), "cached")
    with pytest.raises(CltdbError, match="cannot write to, without stage train of this spec.* run as the owner"):
        run(finished, "train.l0=4")
    assert files == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_a_file_that_one_may_not_write_is_said_with_its_folder(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", tmp_path / ".out.csv.12.tmp")

    error = _unforeseen(pytest.raises(PermissionError, refuse).value, "sql")
    assert str(error).startswith(
        f"{tmp_path}: found a folder one cannot write to (Permission denied); expected permission to write"
    )
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "a folder one cannot read" in str(_unforeseen(pytest.raises(PermissionError, refuse).value, "sql"))


def test_a_plan_tells_the_time_from_earlier_runs(project, capsys):
    """In proportion to the work, from runs of the same stage with the same model on this machine; a resumed run tells nothing."""
    run(project, until="activations")
    workspace = Workspace(project / "artifacts")
    [record] = [record for record in workspace.run_records() if record["stage"] == "activations"]
    assert record["work"] == {"n": record["work"]["n"], "unit": "tokens"}
    write_json(workspace.run_record_path(record["run_id"]), record | {"seconds": 30.0})
    loaded = load(project / "tiny.yaml", overrides=[f"activations.train_tokens={4 * record['work']['n']}"])
    more = loaded.experiment.activations
    expected = 30.0 * (more.train_tokens + more.heldout_tokens) / record["work"]["n"]
    told = times(loaded, plan(loaded))
    assert set(told) == {"activations"} and told["activations"].seconds == pytest.approx(expected)
    assert f"{record['work']['n']:,} tokens took 30 s in tiny" in told["activations"].text
    for other in (
        {"host": "elsewhere"},
        {"status": "failed"},
        {"work": None},
        {"key_parts": record["key_parts"] | {"input model": "x"}},
    ):
        write_json(workspace.run_record_path(record["run_id"]), record | {"seconds": 30.0} | other)
        assert times(loaded, plan(loaded)) == {}


def test_every_run_is_recorded_and_linked(finished):
    run(finished, "evaluate.dense_above=0.2")
    made = Workspace(finished / "artifacts").run_records()
    assert {record["status"] for record in made} == {"done"}
    linked = {(record["spec_hash"], record["stage"]) for record in made}
    assert len(linked) == 8
    assert all(record["versions"]["torch"] for record in made)


def test_a_failure_is_recorded_and_earlier_artifacts_stay(project):
    with pytest.raises(CltdbError, match="asked for; expected at most"):
        run(project, "activations.train_tokens=10_000_000")
    failed = [record for record in Workspace(project / "artifacts").run_records() if record["status"] == "failed"]
    assert [record["stage"] for record in failed] == ["activations"] and "asked for" in failed[0]["error"]
    assert run(project, until="activations") == {"model": "cached", "activations": "run"}


def test_only_needs_finished_inputs(project):
    with pytest.raises(CltdbError, match="its input model is not finished"):
        run(project, only="train", until=None)


@pytest.mark.parametrize("stage", ["activations", pytest.param("train", marks=pytest.mark.slow)])
def test_a_killed_run_continues_and_ends_the_same(project, stage):
    unit = {"activations": "activations/*.partial/train-00003.arrow", "train": "train/*.partial/checkpoints/*/state.json"}[stage]
    longer = {"activations": "activations.train_tokens=2000", "train": "train.epochs=20"}[stage]
    kill_when(unit, project, "run", "tiny.yaml", "--until", stage, "--set", longer)
    workspace = Workspace(project / "artifacts")
    assert [record["status"] for record in workspace.run_records() if record["stage"] == stage] == ["running"], (
        "the kill came too late to test anything"
    )
    assert actions(project, longer)[stage] == ("run", "unfinished: continues from its last finished unit")
    run(project, longer, until=stage)
    assert [record["status"] for record in workspace.run_records() if record["stage"] == stage] == ["killed", "done"]
    resumed = outcome(workspace)
    run(project, longer, until=stage, force=[stage])
    assert outcome(workspace) == resumed


def test_a_process_that_ended_is_gone_also_where_nobody_waited_for_it():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    now = datetime.now(UTC).isoformat()
    record = {"pid": process.pid, "boot_id": records._boot_id(), "started_at": now}
    assert records.is_alive(record) and not records.is_alive(record | {"started_at": "2026-01-01T00:00:00+00:00"})
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert os.path.exists(f"/proc/{process.pid}") and not records.is_alive(record)
    process.communicate()


def outcome(workspace):
    """Content of everything that counts, by path, without times."""
    return {
        str(path.relative_to(workspace.root)): path.read_bytes()
        for path in workspace.root.glob("*/*/**/*")
        if path.suffix in (".arrow", ".safetensors", ".parquet") and path.is_file()
    }


def test_two_processes_cannot_make_the_same_artifact(project):
    loaded = load(project / "tiny.yaml")
    item = plan(loaded)[0]
    with Workspace(project / "artifacts").claim("model", item.key), pytest.raises(CltdbError, match="another cltdb process"):
        run(project)


def test_a_full_disk_leaves_finished_artifacts(project):
    text = "activations.text=[{files: [text.txt]}]"
    run(project, text, until="model")
    with no_larger_files(10_000), pytest.raises(CltdbError, match="train-00000.arrow.*: found no room to write"):
        run(project, text, until="activations")
    assert run(project, text, until="activations") == {"model": "cached", "activations": "run"}


def test_a_full_disk_under_the_text_that_is_held_there(project, monkeypatch):
    (project / "long.jsonl").write_text("".join(json.dumps({"text": f"{n} and more " * 20}) + "\n" for n in range(500)))
    text = "activations.text=[{files: [long.jsonl]}]"
    monkeypatch.setattr("cltdb.activations.texts.HELD_BYTES", 1_000)
    run(project, text, until="model")
    with no_larger_files(20_000), pytest.raises(CltdbError, match="no room to write.*set TMPDIR to a folder on a larger disk"):
        run(project, text, until="activations")
    assert run(project, text, until="activations") == {"model": "cached", "activations": "run"}


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2", "gpt_neox"])
def test_other_architectures_run_up_to_evaluate(project, architecture):
    models.saved(project / architecture, architecture)
    assert run(project, f"model.id={architecture}")["evaluate"] == "run"


def test_plan_has_a_line_per_stage(project, monkeypatch, capfd):
    monkeypatch.chdir(project)
    assert main(["plan", "tiny.yaml"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "model\trun\tnew" and len(lines) == 8


def test_a_model_that_changes_behind_its_key_is_never_mixed_with_results(project, monkeypatch):
    """As where files change during a run: the key is the same, the weights are others."""
    monkeypatch.setitem(STAGES, "model", replace(STAGES["model"], identity=lambda experiment, project: {}))
    run(project, until="activations")
    models.saved(project / "model", seed=1)
    assert actions(project)["train"] == ("run", "new")
    with pytest.raises(CltdbError, match="model model: found other weights, config or tokenizer .fingerprint [0-9a-f]{16}. than"):
        run(project)
    models.saved(project / "model")
    assert run(project) == {"model": "cached", "activations": "cached", "train": "cached", "evaluate": "run"}


def test_what_a_model_is_made_of_is_in_its_key(project):
    run(project, until="model")
    for name in ("chat_template.jinja", "tokenizer_config.json", "model.safetensors"):
        before = (project / "model" / name).read_bytes() if (project / "model" / name).exists() else b""
        (project / "model" / name).write_bytes(before + b" ")
        assert actions(project)["model"] == ("run", "changed: files")
        (project / "model" / name).write_bytes(before)
    (project / "model/chat_template.jinja").unlink()
    assert actions(project)["model"] == ("cached", "finished")
