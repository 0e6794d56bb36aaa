"""A byte flipped, a file cut short, added or gone: one line names the file, its stage and what makes it anew; never other content."""

import json
import os

import polars as pl
import pytest

from cltdb import integrity
from cltdb.errors import CltdbError, DataError
from cltdb.integrity import checked, faults, read_sealed, require_whole, sealed
from cltdb.workspace import MANIFEST, Workspace, remove_folder, write_json

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


def forget():
    """As a new process begins."""
    integrity._seen.clear()
    integrity._manifests.clear()


def flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def rot(path):
    """A flipped byte that size and time do not tell."""
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


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
        patch.setattr("cltdb.workspace.shutil.rmtree", killed)
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
