"""What a branch of the Hub stands for is in the keys: it is asked, kept, and used without network, which is said."""

import json
import logging
import shutil
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx2
import pytest
from command_line import cltdb, in_one_form, said
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id
from worlds import models, projects

from cltdb.__main__ import main
from cltdb.activations.settings import TextSource
from cltdb.activations.texts import Reading, documents
from cltdb.engine import revisions
from cltdb.engine import run as runner
from cltdb.engine.workspace import Workspace
from cltdb.errors import CltdbError
from cltdb.model.loading import load_model
from cltdb.spec import load
from cltdb.stages import STAGES as TABLE

SPEC = """
name: tiny
model: {id: owner/model}
activations: {text: [{dataset: owner/text}, {files: [text.txt]}], context: 16, train_tokens: 2000, heldout_tokens: 200}
train: {from: {format: saelens, path: hf://owner/dictionary/inner}}
"""
PREFLIGHT = TABLE["evaluate"].preflight
A, B, C = "a" * 40, "b" * 40, "c" * 40
STAGES = ("model", "train", "evaluate", "harvest", "attribute")


def answer(status, error=HfHubHTTPError):
    return error("no", response=httpx2.Response(status, request=httpx2.Request("GET", "https://hub.test")))


FAILURES = {
    "no network": ConnectionError("Name or service not known"),
    "no answer in time": httpx2.ConnectTimeout("timed out"),
    "the Hub is down": answer(503),
    "too many requests": answer(429),
    "a page in between": ValueError("Expecting value: line 1 column 1"),
    "offline": OfflineModeIsEnabled("HF_HUB_OFFLINE"),
}


class FakeHub:
    """commits: {(kind, repository, revision): commit}; failure: what is raised instead; asked: what was asked about."""

    def __init__(self):
        self.commits = {("model", "owner/model", "main"): A, ("dataset", "owner/text", "main"): A}
        self.commits["model", "owner/dictionary", "main"] = A
        self.failure, self.asked = None, []

    def info(self, kind):
        def ask(_, repository, *, revision, timeout):
            assert timeout <= 5
            validate_repo_id(repository)
            self.asked.append((kind, repository, revision))
            if self.failure is not None:
                raise self.failure
            if not any(known[:2] == (kind, repository) for known in self.commits):
                raise answer(404, RepositoryNotFoundError)
            if (kind, repository, revision) not in self.commits:
                raise answer(404, RevisionNotFoundError)
            return SimpleNamespace(sha=self.commits[kind, repository, revision])

        return ask


@pytest.fixture
def hub(monkeypatch, tmp_path):
    fake = FakeHub()
    for kind in ("model", "dataset"):
        monkeypatch.setattr(f"huggingface_hub.HfApi.{kind}_info", fake.info(kind))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return fake


@pytest.fixture
def project(hub, tmp_path, monkeypatch):
    """A project whose stages do nothing; `read`: the experiment that each was given."""
    projects.new(tmp_path, SPEC)
    (tmp_path / "text.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    read = {}
    for name, stage in TABLE.items():
        run = lambda job, name=name: read.update({name: job.experiment})  # noqa: E731
        monkeypatch.setitem(TABLE, name, replace(stage, run=run, preflight=lambda experiment, project: None))
    return SimpleNamespace(folder=tmp_path, read=read)


def plan(*overrides):
    return {item.stage: (item.action, item.reason) for item in runner.plan(load("tiny.yaml", overrides=overrides))}


def run(*overrides):
    runner.run(load("tiny.yaml", overrides=overrides), until="attribute")


@pytest.mark.parametrize(
    "moved, stage, reason",
    [
        (("model", "owner/model"), "model", "changed: revision"),
        (("dataset", "owner/text"), "evaluate", "changed: files"),
        (("model", "owner/dictionary"), "train", "changed: revision"),
    ],
)
def test_a_branch_that_moves_is_made_anew_and_without_network_the_kept_commit_is_used(hub, project, caplog, moved, stage, reason):
    run()
    assert {plan()[name] for name in STAGES} == {("cached", "finished")}
    hub.commits[*moved, "main"] = B
    assert plan()[stage] == ("run", reason)
    assert [name for name in STAGES if plan()[name][0] == "run"][0] == stage
    hub.failure, before = ConnectionError("gone"), len(hub.asked)
    with caplog.at_level(logging.WARNING):
        assert plan()[stage] == ("run", reason)  # what was heard last is kept
    assert f"{moved[1]} at main" in caplog.text and f"commit {B[:12]} is used" in caplog.text and "gone" in caplog.text
    assert len(hub.asked) == before + 1  # one failure is enough
    run()
    hub.failure = None
    assert {plan()[name] for name in STAGES} == {("cached", "finished")}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_was_made_stays_cached_without_the_hub(hub, project, failure):
    run()
    hub.failure = FAILURES[failure]
    assert {plan()[name] for name in STAGES} == {("cached", "finished")}


def test_stages_are_given_commits_and_keys_are_of_commits(hub, project):
    hub.commits["model", "owner/model", "v1"] = A
    run()
    experiment = project.read["train"]
    assert experiment.model.revision == A and experiment.activations.text[0].revision == A
    assert experiment.train.published.path == f"hf://owner/dictionary@{A}/inner"
    assert experiment.activations.text[1].files == ["text.txt"]
    text = f"activations.text=[{{dataset: owner/text, revision: {A}}}, {{files: [text.txt]}}]"
    assert {plan("model.revision=v1", text)[name] for name in STAGES} == {("cached", "finished")}
    parts = {record["stage"]: record["key_parts"] for record in Workspace("artifacts").run_records()}
    assert parts["model"]["revision"] == A and parts["train"]["revision"] == A and A in parts["harvest"]["files"]


@pytest.mark.parametrize("stage", ["evaluate", "harvest"])
def test_text_of_a_stage_of_its_own_is_read_at_its_commit(hub, project, stage):
    own = f"{stage}.text=[{{dataset: owner/other}}]"
    hub.commits["dataset", "owner/other", "main"] = B
    run(own)
    assert getattr(project.read[stage], stage).text[0].revision == B
    hub.commits["dataset", "owner/other", "main"] = C
    assert plan(own)[stage] == ("run", "changed: files") and plan(own)["activations"][0] == "cached"


def test_a_commit_is_not_asked_about(hub, project):
    commits = [f"model.revision={C}", f"train.from.path=hf://owner/dictionary@{C}"]
    plan(*commits, f"activations.text=[{{dataset: owner/text, revision: {C}}}]")
    assert hub.asked == []


def test_the_hub_is_asked_once_in_a_sweep(hub, project):
    from cltdb.spec import load_points

    points = load_points("tiny.yaml", overrides=["sweep.harvest.top=[5, 6, 7]"])
    runner.run_points(points, until="attribute")
    assert len(hub.asked) == 3


@pytest.mark.parametrize(
    "override, words",
    [
        ("model.id=owner/gone", ["model.id", "owner/gone@main", "HF_TOKEN"]),
        ("model.revision=gone", ["model.id", "owner/model@gone"]),
        ("model.id=a name", ["model.id", "'a name'", "OWNER/NAME"]),
        ("activations.text=[{dataset: owner/gone}]", ["activations.text owner/gone", "owner/gone@main"]),
        ("activations.text=[{dataset: ./gone}]", ["activations.text ./gone", "no folder here"]),
        ("train.from.path=hf://owner/gone", ["train.from.path", "owner/gone@main"]),
    ],
)
def test_what_is_not_on_the_hub_is_said_in_plan_and_run(hub, project, capfd, override, words):
    for command in ("plan", "run"):
        assert main([command, "tiny.yaml", "--set", override]) == 1
        error = in_one_form(capfd.readouterr().err)
        assert not [word for word in words if word not in error], error


def test_a_repository_that_is_gone_is_used_as_it_was(hub, project, caplog):
    run()
    del hub.commits["model", "owner/model", "main"], hub.commits["model", "owner/dictionary", "main"]
    assert {plan()[name] for name in STAGES} == {("cached", "finished")}
    assert f"owner/model at main (it has no owner/model any more): commit {A[:12]}" in caplog.text


@pytest.mark.parametrize("override", ["", "activations.text=[{dataset: nobody/knows}]", "train.from.path=hf://nobody/knows"])
def test_what_nobody_knows_is_one_line_before_anything_runs(hub, project, capfd, override):
    if override:
        run()
    hub.failure = FAILURES["no network"]
    for name, stage in TABLE.items():  # as they are outside of this file
        TABLE[name] = replace(stage, preflight=PREFLIGHT) if name == "evaluate" else stage
    assert main(["run", "tiny.yaml", "--set", override or "model.id=nobody/knows"]) == 1
    *notes, error = capfd.readouterr().err.splitlines()
    assert "nobody/knows" in in_one_form(error) and "cannot be reached (ConnectionError: Name" in error
    assert all("is used" in note for note in notes)


def test_repositories_that_a_dictionary_lists_are_in_its_key(hub, project):
    (project.folder / "set").mkdir()
    files = [f"hf://owner/layers/layer_{n}.safetensors" for n in (0, 1)] + ["hf://owner/other/a.safetensors?revision=v2"]
    (project.folder / "set/config.yaml").write_text(json.dumps({"transcoders": files}))
    hub.commits |= {("model", "owner/layers", "main"): A, ("model", "owner/other", "v2"): A}
    listed = "train.from={format: circuit-tracer, path: set}"
    run(listed)
    assert plan(listed)["train"] == ("cached", "finished")
    hub.commits["model", "owner/other", "v2"] = B
    assert plan(listed)["train"] == ("run", "changed: listed")


def test_a_damaged_note_is_not_believed(hub, project, caplog):
    run()
    [note] = (project.folder / "artifacts/revisions").glob("model--owner--model@main.json")
    note.write_text(note.read_text().replace(A, C))
    assert plan()["model"] == ("cached", "finished")
    note.write_text(note.read_text().replace(A, C))
    hub.failure = FAILURES["no network"]
    assert plan()["model"] == ("run", "changed: revision") and f"{note.name} is damaged" in caplog.text
    note.write_text("{")
    hub.failure = None
    assert plan()["model"] == ("cached", "finished")


# With a model in the Hub's cache on this machine, as a download leaves it.


@pytest.fixture
def downloaded(hub, tmp_path):
    folder = tmp_path / "hub/models--owner--model"
    models.saved(folder / "snapshots" / A)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(A)
    return folder


@pytest.mark.parametrize("failure", ["no network", "the Hub is down"])
def test_a_model_that_was_downloaded_loads_without_network(hub, downloaded, monkeypatch, failure, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def send(client, request, **_):
        assert "owner" not in str(request.url), "the network is tried"
        raise httpx2.ConnectError("gone")  # what the library asks of its own accord

    monkeypatch.setattr("httpx2.Client.send", send)
    hub.failure = FAILURES[failure]
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert load_model("owner/model", device="cpu").revision == A
    assert load_model("owner/model", device="cpu", revision=A).n_layers == 2
    assert slept == []  # as between several tries
    with pytest.raises(CltdbError, match=r"model owner/model: found .*; expected"):
        load_model("owner/model", device="cpu", revision=B)


def test_stage_model_loads_the_commit_that_was_kept(hub, downloaded, tmp_path, monkeypatch):
    projects.new(tmp_path, SPEC.replace("path: hf://owner/dictionary/inner", "path: nowhere"))
    monkeypatch.chdir(tmp_path)
    with revisions.asked_once():
        [result] = runner.run(load("tiny.yaml"), until="model")
    assert json.loads((result.directory / "model.json").read_text())["revision"] == A
    shutil.copytree(downloaded / "snapshots" / A, downloaded / "snapshots" / B)
    (downloaded / "refs/main").write_text(B)  # by another program
    hub.failure = FAILURES["no network"]
    assert runner.run(load("tiny.yaml"), until="model")[0].action == "cached"
    hub.failure, hub.commits["model", "owner/model", "main"] = None, B
    [result] = runner.run(load("tiny.yaml"), until="model")
    assert json.loads((result.directory / "model.json").read_text())["revision"] == B


def test_an_id_that_does_not_resolve_ends_at_once_in_one_line(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    asked = []

    class Gone(BaseHTTPRequestHandler):
        def handle_one_request(self):
            asked.append(self.rfile.readline())

    with ThreadingHTTPServer(("127.0.0.1", 0), Gone) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        failed = cltdb(tmp_path, "run", "tiny.yaml", HF_HUB_OFFLINE="0", HF_ENDPOINT=address, HF_HOME=str(tmp_path))
        server.shutdown()
    assert "owner/model" in said(failed) and sum(b"owner/model" in line for line in asked) == 1  # and not tried for half a minute


@pytest.fixture
def copies(hub, tmp_path, monkeypatch):
    """The copies of two commits of a dataset as datasets keeps them, B the later one; each text names its commit."""
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    for commit in (A, B):
        (tmp_path / f"{commit}.jsonl").write_text(json.dumps({"text": commit[0]}) + "\n")
        datasets.load_dataset("json", data_files=str(tmp_path / f"{commit}.jsonl"), cache_dir=str(tmp_path / commit))
        [made] = (tmp_path / commit).glob("json/*/*/*/json-train.arrow")
        folder = tmp_path / "datasets/owner___text/default/0.0.0" / commit
        shutil.copytree(made.parent, folder)
        (folder / "json-train.arrow").rename(folder / "text-train.arrow")


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("streaming", [True, False])
def test_without_network_text_is_read_from_the_copy_of_the_kept_commit(hub, copies, tmp_path, monkeypatch, offline, streaming):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", offline)
    hub.failure = FAILURES["no network"]

    def texts(**source):
        given = TextSource(dataset="owner/text", streaming=streaming, **source)
        return [text for text, _ in documents(given, seed=0, root=tmp_path, reading=Reading())]

    assert texts(revision=A) == ["a"] and texts(revision=B) == ["b"]
    for wrong, words in (({"revision": C}, "no copy of commit cccc"), ({"revision": A, "split": "test"}, "test")):
        with pytest.raises(CltdbError, match=f"activations.text owner/text: found .*{words}"):
            texts(**wrong)
