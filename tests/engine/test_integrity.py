"""A byte flipped, a file cut short, added or gone: one line names the file, its stage and what makes it anew; never other content."""

import json
import os
import shutil
from contextlib import suppress

import polars as pl
import pytest
from damage import cut, flip, forget, rot
from worlds import projects

from cltdb.database.artifacts import rebuild_database
from cltdb.database.check import check
from cltdb.database.load import load_artifact
from cltdb.database.store import connect
from cltdb.engine import integrity
from cltdb.engine.integrity import checked, faults, read_sealed, require_whole, sealed
from cltdb.engine.upkeep import collect_garbage
from cltdb.engine.workspace import MANIFEST, Workspace, remove_folder, write_json, write_parquet
from cltdb.errors import CltdbError, DataError
from cltdb.spec import find_project
from cltdb.stages import STAGES

KEY = "0123456789abcdef"


@pytest.fixture
def artifact(tmp_path):
    """A finished artifact of stage harvest, as another process sees it."""
    workspace = Workspace(tmp_path)
    directory = workspace.store(
        "harvest", KEY, {"features": pl.DataFrame({"x": range(1000)})}, part="a", about={"experiment": "tiny"}
    )
    write_json(directory / MANIFEST, json.loads((directory / MANIFEST).read_text()))
    forget()
    return directory


@pytest.mark.parametrize(
    "damage,found", [(flip, "other bytes"), (cut, "bytes; expected"), (os.remove, "no such file"), (rot, "other")]
)
def test_damage_is_said_when_the_file_is_used_and_when_all_are_checked(artifact, damage, found):
    path = artifact / "tables/features/a.parquet"
    assert checked(path) == path and list(faults(artifact, thorough=True)) == []
    forget()
    damage(path)
    with pytest.raises(DataError, match=found) as error:
        checked(path)
    [same] = faults(artifact, thorough=True)
    for said in (str(error.value), str(same)):
        assert (
            str(path) in said
            and "stage harvest" in said
            and "`cltdb run SPEC --force harvest`" in said
            and "experiment tiny" in said
        )
    if damage is not rot:  # what a look at sizes and times tells
        with pytest.raises(DataError, match=found):
            require_whole(artifact)


def test_a_file_that_nobody_wrote_is_refused(artifact):
    stranger = artifact / "tables/features/b.parquet"
    stranger.write_bytes(b"more rows")
    with pytest.raises(DataError, match="did not write"):
        checked(stranger)
    assert len(list(faults(artifact, thorough=True))) == 1


@pytest.mark.parametrize("place", [0, 40, -3, None])
def test_a_damaged_manifest_vouches_for_nothing(artifact, place):
    flip(artifact / MANIFEST, place)
    for use in (lambda: checked(artifact / "tables/features/a.parquet"), lambda: require_whole(artifact)):
        with pytest.raises(DataError, match="manifest that is damaged.*--force harvest"):
            use()


def test_a_file_is_read_once_per_process_and_large_ones_once(artifact, monkeypatch):
    reads, path = [], artifact / "tables/features/a.parquet"
    real = integrity._sha256
    monkeypatch.setattr(integrity, "_sha256", lambda path: reads.append(path) or real(path))
    for _ in range(3):
        checked(path)
    assert reads == [path]
    forget()
    checked(path)
    assert reads == [path] * 2
    forget()
    monkeypatch.setattr(integrity, "LARGE_BYTES", 10)
    checked(path)
    assert reads == [path] * 2  # known by size and time
    os.utime(path)
    for _ in range(2):
        forget()
        checked(path)
    assert reads == [path] * 3


def test_artifacts_without_hashes_and_folders_of_users_are_taken_as_they_are(artifact, tmp_path):
    manifest = read_sealed(artifact / MANIFEST)
    manifest.pop("files")
    write_json(artifact / MANIFEST, manifest)
    flip(artifact / "tables/features/a.parquet")
    assert checked(artifact / "tables/features/a.parquet") and list(faults(artifact, thorough=True)) == []
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / MANIFEST).write_text("not of cltdb")
    (folder / "x").write_text("x")
    assert checked(folder / "x") == folder / "x"


@pytest.mark.parametrize("text", ["", '{"run_id": "r', "[]", "{}", '{"run_id": "r", "digest": "0"}'])
def test_a_damaged_record_is_set_aside_and_said_once(tmp_path, text, caplog):
    workspace = Workspace(tmp_path)
    record = dict.fromkeys(("run_id", "experiment", "spec_hash", "stage", "key", "status", "started_at"), "r")
    spec = {"experiment": "tiny", "spec_hash": "h", "spec_yaml": "", "created_at": "2026-01-01", "sweep": None}
    workspace.save_run(record | {"run_id": "good"})
    workspace.run_record_path("bad").write_text(text)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/tiny-h.json").write_text(text)
    for _ in range(2):
        assert [one["run_id"] for one in workspace.run_records()] == ["good"]
        assert workspace.experiment_records() == []
    assert len(caplog.records) == 2 and "bad.json is damaged" in caplog.text
    assert {path.name for path in workspace.damaged_records()} == {"bad.json.damaged", "tiny-h.json.damaged"}
    workspace.save_experiment("tiny", "h", spec)
    assert workspace.experiment_records() == [spec]


def test_a_flipped_byte_in_a_record_is_damage(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, sealed({"seconds": 12.5, "name": "é"}))
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (1, 4):
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            try:
                value = read_sealed(path)
            except ValueError:
                continue
            assert {name: value[name] for name in ("seconds", "name")} == {
                "seconds": 12.5,
                "name": "é",
            }  # white space, the seal's name


def test_a_folder_is_removed_as_a_whole_or_has_another_name(artifact, monkeypatch):
    workspace = Workspace(artifact.parents[1])

    def killed(path, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cltdb.engine.workspace.shutil.rmtree", killed)
        workspace.discard("harvest", KEY)
    workspace.discard("harvest", KEY)
    assert not artifact.exists() and workspace.leftovers() == []
    remove_folder(artifact)


def test_a_folder_without_manifest_makes_room_for_the_finished_artifact(artifact):
    workspace = Workspace(artifact.parents[1])
    (artifact / MANIFEST).unlink()
    assert not workspace.is_finished("harvest", KEY)
    with pytest.raises(CltdbError):
        workspace.manifest("harvest", KEY)
    again = workspace.store("harvest", KEY, {"features": pl.DataFrame({"x": range(10)})}, part="b", about={})
    assert [path.name for path in again.rglob("*.parquet")] == ["b.parquet"] and list(faults(again, thorough=True)) == []


# Kills: at each step of what removes or finishes an artifact.


class Killed(BaseException):
    pass


def killed_at(monkeypatch, number):
    """Lets renamings and removals number 0 to number - 1 happen; the next one kills, a removal halfway."""
    calls, replace, rmtree = [], os.replace, shutil.rmtree

    def count(do, halfway=None):
        def step(*args, **options):
            calls.append(do)
            if len(calls) <= number:
                return do(*args, **options)
            if halfway:
                halfway(args[0])
            raise Killed

        return step

    def lose_a_file(directory):
        for path in sorted(path for path in os.scandir(directory) if path.is_file())[:1] if os.path.isdir(directory) else ():
            os.unlink(path)

    monkeypatch.setattr(os, "replace", count(replace))
    monkeypatch.setattr(shutil, "rmtree", count(rmtree, lose_a_file))


def made(workspace, started_at="2026-01-01T00:00:00+00:00"):
    frames = {"models": pl.DataFrame({"model_id": ["m"], "revision": ["r"], "architecture": ["a"]})}
    with workspace.claim("model", KEY):
        if not workspace.is_finished("model", KEY):
            for table, frame in frames.items():
                write_parquet(workspace.partial("model", KEY) / "tables" / table / "part.parquet", frame)
            workspace.finish_artifact("model", KEY, {"started_at": started_at, "experiment": "tiny"})
    return workspace.artifact("model", KEY)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("during", ["finish", "discard", "force"])
def test_a_kill_while_an_artifact_is_finished_or_removed_bricks_nothing(tmp_path, monkeypatch, during, number):
    """What is there afterwards is whole, or unfinished, or gone; and making it again ends well."""
    workspace = Workspace(tmp_path)
    if during != "finish":
        made(workspace)
    with monkeypatch.context() as patch, suppress(Killed):
        killed_at(patch, number)
        if during != "finish":
            workspace.discard("model", KEY)
        if during != "discard":
            made(workspace)
    forget()
    if workspace.is_finished("model", KEY):
        assert list(faults(workspace.artifact("model", KEY), thorough=True)) == []
    directory = made(workspace)
    assert list(faults(directory, thorough=True)) == [] and [path.name for path in directory.rglob("*.parquet")] == [
        "part.parquet"
    ]
    workspace.discard("model", KEY)
    assert workspace.leftovers() == [] and not workspace.artifact("model", KEY).exists()


N_STEPS = {"gc": 3, "rebuild": 4}


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """A project with two artifacts in its database, of which the later, that nothing refers to, hides the rows of the other."""
    project = find_project(projects.new(tmp_path_factory.mktemp("hidden")))
    workspace = Workspace(project.workspace)
    made(workspace)
    kept = shutil.copytree(workspace.artifact("model", KEY), workspace.artifact("model", KEY[::-1]))
    manifest = read_sealed(kept / MANIFEST) | {"key": KEY[::-1], "started_at": "2025-01-01T00:00:00+00:00"}
    write_json(kept / MANIFEST, sealed(manifest))
    record = dict.fromkeys(("experiment", "spec_hash"), "x") | {
        "run_id": "r",
        "stage": "model",
        "key": KEY[::-1],
        "status": "done",
    }
    run = record | {"started_at": "2025-01-01T00:00:00+00:00", "key_parts": {}, "versions": {}}
    workspace.save_run(run | {"seconds": 1.0} | dict.fromkeys(("host", "device", "error")))
    workspace.save_experiment("x", "x", {"experiment": "x", "spec_hash": "x", "spec_yaml": ""})
    for _, key, directory in workspace.artifacts():
        load_artifact(project.database, key=key, directory=directory)
    return project.root


@pytest.mark.parametrize(("during", "number"), [(during, number) for during, n in N_STEPS.items() for number in range(n + 1)])
def test_a_kill_while_garbage_goes_or_a_database_is_rebuilt_is_made_good(hidden, tmp_path, monkeypatch, during, number):
    """The artifact that nothing refers to hides rows of one that is kept; afterwards they are there, whatever was killed."""
    project = find_project(shutil.copytree(hidden, tmp_path / "project"))
    workspace = Workspace(project.workspace)
    forget()
    do = (lambda: collect_garbage(project, STAGES, delete=True)) if during == "gc" else lambda: rebuild_database(project)
    was_killed = True
    with monkeypatch.context() as patch, suppress(Killed):
        killed_at(patch, number)
        do()
        was_killed = False
    assert not (was_killed and number == N_STEPS[during]), "there are more steps at which a kill is to be tried"
    forget()
    done = do()
    with connect(project.database) as connection:
        [(key,)] = connection.execute("SELECT artifact_key FROM models").fetchall()
    assert key == (KEY[::-1] if during == "gc" else KEY) and workspace.leftovers() == []
    if during == "rebuild":
        assert done == []  # problems of what was made, which it checks
    else:
        assert check(project.database, artifacts=[(key, place) for _, key, place in workspace.artifacts()]) == []
        assert [place.name for *_, place in workspace.folders() if place.parent.name == "model"] == [KEY[::-1]]
