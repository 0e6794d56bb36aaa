"""Records of units: kept by one SQLite file whatever ends a process, found again, damaged, taken in from files, removed."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest
import stored_units
from command_line import ROOT, in_one_form, no_larger_files

from cltdb.engine import integrity, unit_records, units
from cltdb.engine.units import EXPLANATIONS, GRAPHS, REPLIES, SCORES, Units
from cltdb.errors import CltdbError, DataError

FILE = "units/records.sqlite"


def artifact(workspace, name="explain/a"):
    directory = workspace / name
    directory.mkdir(parents=True, exist_ok=True)
    return Units(workspace, directory)


def faults(workspace):
    return [str(fault) for fault in units.damage(workspace)]


def test_a_record_is_found_by_its_kind_and_key_alone(tmp_path):
    made = artifact(tmp_path)
    record = {"value": ["fires on 'é' \ud800", 1.5, None], "spent": {"usd": 0.1}}
    made.put(SCORES, "b/1", record)
    made.put_many(EXPLANATIONS, {f"b/{n}": {"n": n} for n in range(5)})
    other = artifact(tmp_path, "explain/other.partial")
    assert other.artifact == "explain/other"
    assert other.get(SCORES, "b/1") == record and other.get(SCORES, "b/2") is None and other.get(REPLIES, "b/1") is None
    assert other.get_many(EXPLANATIONS, ["b/4", "b/9", "b/0"]) == {"b/4": {"n": 4}, "b/0": {"n": 0}}
    with pytest.raises(ValueError):
        made.put(SCORES, "b/3", {"value": float("nan")})
    assert stored_units.keys(tmp_path, SCORES) == ["b/1"]


def test_of_two_that_make_the_same_unit_the_first_is_kept(tmp_path):
    artifact(tmp_path).put(SCORES, "b/1", {"by": 1})
    second = artifact(tmp_path, "explain/b")
    second.put_many(SCORES, {"b/1": {"by": 2}, "b/2": {"by": 2}})
    assert second.get_many(SCORES, ["b/1", "b/2"]) == {"b/1": {"by": 1}, "b/2": {"by": 2}}


def test_random_operations_agree_with_a_dictionary(tmp_path, monkeypatch):
    """Of what is there, what of it an artifact uses, what is counted, forgotten and unused."""
    draw, kinds, groups = random.Random(3), (REPLIES, EXPLANATIONS, SCORES), ("b", "b-x", "c")
    there, uses, makers = {}, {}, {}
    monkeypatch.setattr(unit_records, "BATCH", 3)
    for step in range(200):
        name = draw.choice(["explain/a", "explain/b", "label/a"])
        maker = makers.setdefault(name, artifact(tmp_path, name))
        mine = uses.setdefault(name, set())
        kind = draw.choice(kinds)
        keys = {f"{draw.choice(groups)}/{draw.randrange(8)}" for _ in range(draw.randrange(4))}
        action = draw.choices(["put", "get", "count", "forget", "unused", "gone"], [8, 8, 4, 1, 2, 1])[0]
        if action == "put":
            maker.put_many(kind, {key: {"step": step} for key in keys})
            for key in keys:
                there.setdefault((kind, key), {"step": step})
                mine.add((kind, key))
        elif action == "get":
            found = {key: there[kind, key] for key in keys if (kind, key) in there}
            assert maker.get_many(kind, keys) == found
            mine |= {(kind, key) for key in found}
            used = [there[unit]["step"] for unit in mine if unit[0] == kind]
            assert sorted(record["step"] for record in maker.used(kind)) == sorted(used)
        elif action == "count":
            for group in groups:
                expected = sum(of == kind and key.startswith(group + "/") for of, key in there)
                assert units.count(tmp_path, kind, group) == expected
        elif action == "forget":
            units.forget(tmp_path, [tmp_path / name, tmp_path / f"{name}.partial"])
            gone = {unit for unit in mine if unit[0] != REPLIES}
            there = {unit: record for unit, record in there.items() if unit not in gone}
            uses = {other: used - gone for other, used in uses.items()}
        else:
            if action == "gone":
                (tmp_path / name).rmdir()
                del uses[name], makers[name]
            used = set().union(*uses.values()) & there.keys()
            expected = Counter(kind for kind, _ in there.keys() - used)
            with monkeypatch.context() as patched:  # who may not write looks at the same
                patched.setattr(os, "access", lambda *_: False)
                assert units.unused(tmp_path) == ([], expected)
            assert units.unused(tmp_path) == ([], expected) == units.unused(tmp_path, delete=True)
            there = {unit: there[unit] for unit in used}
    assert len(there) > 5 and faults(tmp_path) == []


def test_what_an_artifact_that_counts_no_more_used_is_unused(tmp_path):
    for name in ("a", "b.partial"):
        artifact(tmp_path, f"explain/{name}").put_many(SCORES, {"b/1": {}, f"b/{name}": {}})
    assert units.unused(tmp_path).records == {}
    assert units.unused(tmp_path, ignoring=[tmp_path / "explain/a"]).records == {SCORES: 1}
    big = {f"b/{n}": {"text": random.Random(n).randbytes(500).hex()} for n in range(500)}
    artifact(tmp_path, "explain/c").put_many(REPLIES, big)
    size = (tmp_path / FILE).stat().st_size
    (tmp_path / "explain/c").rmdir()
    assert units.unused(tmp_path, delete=True).records == {REPLIES: 500}
    assert (tmp_path / FILE).stat().st_size < size / 4


# Processes: killed, and many at once.

WRITER = r"""
import os, sys, threading
from pathlib import Path
from cltdb.engine.units import Units
workspace, name, n_threads, n_each = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
units = Units(workspace, workspace / "explain" / name)
def write(thread):
    for n in range(n_each):
        units.put("scores", f"b/{name}-{thread}-{n}", {"n": n, "text": "x" * n})
        units.put("scores", f"same/{n}", {"by": f"{name}-{thread}"})
        os.write(1, f"{thread} {n} {units.get('scores', f'same/{n}')['by']}\n".encode())
threads = [threading.Thread(target=write, args=(thread,)) for thread in range(n_threads)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def writer(workspace, name, n_threads, n_each):
    words = [sys.executable, "-c", WRITER, str(workspace), name, str(n_threads), str(n_each)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_killed_process_loses_nothing_that_it_had_put(tmp_path):
    for place, n_before in enumerate((1, 40)):
        with writer(tmp_path, f"k{place}", 3, 100_000) as process:
            lines = [process.stdout.readline() for _ in range(n_before)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        put = [line.split() for line in lines if line.endswith("\n")]
        found = stored_units.records(tmp_path, SCORES)
        assert len(put) >= n_before
        for thread, n, _ in put:
            assert found[f"b/k{place}-{thread}-{n}"] == {"n": int(n), "text": "x" * int(n)}
        n_found = sum(key.startswith(f"b/k{place}-") for key in found)
        assert n_found <= len(put) + 2 * 3  # the one after, and its line
        assert faults(tmp_path) == []
    assert units.unused(tmp_path).records == {}


def test_threads_of_several_processes_write_at_once(tmp_path):
    processes = [writer(tmp_path, f"p{place}", 4, 25) for place in range(4)]
    said = [process.communicate()[0].split("\n")[:-1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4 and [len(lines) for lines in said] == [100] * 4
    found = stored_units.records(tmp_path, SCORES)
    assert len(found) == 4 * 4 * 25 + 25 and units.count(tmp_path, SCORES, "same") == 25
    for lines in said:
        for _, n, by in map(str.split, lines):
            assert found[f"same/{n}"] == {"by": by}  # whoever asked and whenever: the first
    with stored_units.database(tmp_path) as connection:
        used = dict(connection.execute("SELECT name, count(*) FROM uses JOIN artifacts ON id = artifact_id GROUP BY name"))
    assert {name: n for name, n in used.items() if name != "look/here"} == {f"explain/p{place}": 125 for place in range(4)}


def test_threads_of_one_artifact_share_a_connection(tmp_path):
    made, errors = artifact(tmp_path), []

    def work(thread):
        try:
            for n in range(30):
                made.put(SCORES, f"b/{thread}-{n}", {"n": n})
                assert made.get(SCORES, f"b/{thread}-{n}") == {"n": n}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and units.count(tmp_path, SCORES, "b") == 240


# Damage.


@pytest.mark.parametrize("place", [0, 5, -1, "digest", "swapped"])
def test_a_damaged_record_is_said_and_made_again(tmp_path, caplog, place):
    artifact(tmp_path).put_many(SCORES, {"b/1": {"value": 1}, "b/2": {"value": 2}})
    with stored_units.database(tmp_path) as connection:
        if place == "digest":
            connection.execute("UPDATE units SET digest = x'00' WHERE key = 'b/1'")
        elif place == "swapped":  # a record under the name of another
            connection.execute(
                "UPDATE units SET (record, digest) = (SELECT record, digest FROM units WHERE key = 'b/2') WHERE key = 'b/1'"
            )
    if isinstance(place, int):
        stored_units.flip(tmp_path, SCORES, "b/1", place)
    again = artifact(tmp_path, "explain/b")
    assert again.get_many(SCORES, ["b/1", "b/2"]) == {"b/2": {"value": 2}} and "scores/b/1 is damaged" in caplog.text
    [fault] = faults(tmp_path)
    assert "(scores/b/1)" in in_one_form(f"error: {fault}")
    again.put(SCORES, "b/1", {"value": 3})
    assert again.get(SCORES, "b/1") == {"value": 3} and faults(tmp_path) == []
    assert units.unused(tmp_path).records == {}


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == "header":
        content[:16] = bytes(16)
    elif how == "cut":
        del content[len(content) // 2 :]
    else:
        content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["header", "cut", "pages"])
def test_a_damaged_file_is_one_error_and_moved_away_as_it_says_all_goes_on(tmp_path, how):
    many = {f"b/{n}": {"text": random.Random(n).randbytes(50).hex()} for n in range(200)}
    artifact(tmp_path).put_many(SCORES, many)
    spoil(tmp_path / FILE, how)
    again = artifact(tmp_path, "explain/b")
    attempts = (
        lambda: again.get_many(SCORES, list(many)),
        lambda: again.put_many(SCORES, {f"c/{n}": record for n, record in enumerate(many.values())}),
        lambda: units.count(tmp_path, SCORES, "b"),
        lambda: units.unused(tmp_path, delete=True),
        lambda: units.forget(tmp_path, [tmp_path / "explain/a"]),
    )
    for attempt in attempts:
        with pytest.raises(DataError, match="move it away") as caught:
            attempt()
    [fault] = faults(tmp_path)
    assert str(tmp_path / FILE) in in_one_form(f"error: {fault}")
    command = str(caught.value).partition("`")[2].partition("`")[0]
    assert subprocess.run(command, shell=True).returncode == 0
    assert again.get_many(SCORES, list(many)) == {} and units.count(tmp_path, SCORES, "b") == 0
    again.put_many(SCORES, many)
    assert again.get_many(SCORES, list(many)) == many and faults(tmp_path) == []


def test_a_file_that_is_gone_is_made_anew(tmp_path):
    """Also beside the log of the earlier one, which does not belong to it."""
    with writer(tmp_path, "k", 1, 100_000) as process:
        process.stdout.readline()
        process.kill()
    assert (tmp_path / f"{FILE}-wal").stat().st_size
    (tmp_path / FILE).unlink()
    made = artifact(tmp_path)
    assert made.get(SCORES, "b/k-0-0") is None
    made.put(SCORES, "b/1", {})
    assert stored_units.keys(tmp_path, SCORES) == ["b/1"] and faults(tmp_path) == []


def test_a_file_of_a_later_cltdb_is_left_alone(tmp_path):
    made = artifact(tmp_path)
    made.put(SCORES, "b/1", {})
    with stored_units.database(tmp_path) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(DataError, match="later cltdb"):
        artifact(tmp_path, "explain/b").get(SCORES, "b/1")
    with pytest.raises(DataError, match="later cltdb"):
        units.count(tmp_path, SCORES, "b")


def test_a_full_disk_is_one_error_and_keeps_what_was_put(tmp_path):
    big = {f"b/{n}": {"text": random.Random(n).randbytes(1000).hex()} for n in range(100)}
    made = artifact(tmp_path)
    made.put_many(SCORES, dict(list(big.items())[:10]))
    with no_larger_files(60_000), pytest.raises(CltdbError, match="no room to write"):
        made.put_many(SCORES, big)
    with no_larger_files(1000), pytest.raises(CltdbError, match="no room to write"):
        artifact(tmp_path / "new").put_many(SCORES, big)
    assert stored_units.keys(tmp_path, SCORES) == sorted(list(big)[:10])
    made.put_many(SCORES, big)
    assert made.get_many(SCORES, list(big)) == big and faults(tmp_path) == []


@pytest.fixture
def as_another_user():
    """A folder, and a way to call a function as a user who may read it but not write in it; returns what it returned or raised."""
    folder = Path(tempfile.mkdtemp(prefix="cltdb-"))
    folder.chmod(0o755)

    def call(function):
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                if os.geteuid() == 0:
                    os.setuid(65_534)
                outcome = function()
            except (CltdbError, OSError) as error:
                outcome = str(error)
            finally:
                os.write(write, json.dumps(outcome).encode())
                os._exit(0)
        os.close(write)
        with open(read, "rb") as stream:
            outcome = json.loads(stream.read())
        os.wait()
        return outcome

    yield folder, call
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        path.chmod(0o755)
    subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_workspace_that_cannot_be_written_to_may_be_counted(as_another_user, is_killed):
    folder, call = as_another_user
    if is_killed:
        with writer(folder, "k", 1, 100_000) as process:
            process.stdout.readline()
            process.kill()
    else:
        artifact(folder).put_many(SCORES, {"b/1": {}, "b/2": {}})
    n = call(lambda: units.count(folder, SCORES, "b"))
    assert n == 2 or is_killed and n >= 1
    assert "Permission denied" in call(lambda: Units(folder, folder / "explain/k").get(SCORES, "b/1"))


def test_on_a_file_system_of_several_machines_there_is_no_write_ahead_log(tmp_path, monkeypatch):
    first = artifact(tmp_path)
    first.put(SCORES, "b/1", {})
    del first
    monkeypatch.setattr(unit_records, "_is_shared", lambda path: True)
    made = artifact(tmp_path, "explain/b")
    made.put(SCORES, "b/2", {})
    assert made.get_many(SCORES, ["b/1", "b/2"]) == {"b/1": {}, "b/2": {}} and units.count(tmp_path, SCORES, "b") == 2
    assert not list((tmp_path / "units").glob("*-wal"))


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("/dev/a / ext4 rw 0 0\nserver:/x /data nfs4 rw 0 0", True),
        ("/dev/a / ext4 rw 0 0\nserver:/x /dat nfs4 rw 0 0", False),
        ("server:/x / nfs rw 0 0\n/dev/a /data ext4 rw 0 0", False),
        ("/dev/a / ext4 rw 0 0\ns3 /data/my\\040work fuse.s3fs rw 0 0", True),
        ("", False),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(monkeypatch, mounts, expected):
    monkeypatch.setattr(Path, "read_text", lambda self, **options: mounts)
    assert unit_records._is_shared(Path("/data/my work/units/records.sqlite")) == expected


# Workspaces of an earlier cltdb: a file per record, listed by artifacts.


def earlier(workspace, name, made):
    """Writes {kind/key: record} as an earlier cltdb did, used by an artifact."""
    directory = workspace / name
    directory.mkdir(parents=True)
    for unit, record in made.items():
        path = workspace / f"units/{unit}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(integrity.sealed({**record, "unit": unit})))
    (directory / "units-0.txt").write_text("".join(f"\n{unit}\n" for unit in [*made, "graphs/g"]))


@pytest.fixture
def taken_over(tmp_path):
    made = {f"replies/ab/{n}": {"text": f"é{n}", "cost_usd": 0.5} for n in range(7)}
    earlier(tmp_path, "explain/a", made | {"scores/b-detection/0-1-x": {"value": 1}})
    earlier(tmp_path, "explain/b.partial", {"replies/ab/0": {"text": "é0", "cost_usd": 0.5}, "explanations/b/0-1": {"value": 2}})
    (tmp_path / "units/replies/ab/.9.json.tmp").write_text("torn")
    graph = Units(tmp_path, tmp_path / "explain/a").put_folder(GRAPHS, "g", {}, lambda folder: (folder / "x").write_text("y"))
    assert graph[1].is_dir()
    return tmp_path, made


def test_files_of_an_earlier_cltdb_are_counted_and_taken_in(taken_over, caplog):
    workspace, made = taken_over
    assert [units.count(workspace, *which) for which in ((REPLIES, "ab"), (SCORES, "b-detection"), (SCORES, "b"))] == [7, 1, 0]
    path = workspace / "units/replies/ab/6.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    lists = {path: path.read_bytes() for path in workspace.glob("*/*/units-*.txt")}
    found = artifact(workspace, "explain/new").get_many(REPLIES, [f"ab/{n}" for n in range(8)])
    assert found == {f"ab/{n}": made[f"replies/ab/{n}"] for n in range(6)}
    assert "6.json is damaged" in caplog.text and path.with_name("6.json.damaged").exists()
    assert {path: path.read_bytes() for path in lists} == lists  # of finished artifacts, whose manifests hold their hashes
    assert not (workspace / "units/scores").exists() and units.has_folder(workspace, GRAPHS, "g")
    assert [units.count(workspace, *which) for which in ((REPLIES, "ab"), (SCORES, "b-detection"))] == [6, 1]
    assert units.unused(workspace) == ([], {})
    both = [workspace / "explain/a", workspace / "explain/new"]
    assert units.unused(workspace, ignoring=both).records == {REPLIES: 5, SCORES: 1}
    units.forget(workspace, [workspace / "explain/b", workspace / "explain/b.partial"])
    assert stored_units.keys(workspace, EXPLANATIONS) == [] and len(stored_units.keys(workspace, REPLIES)) == 6


def test_a_taking_in_that_is_killed_loses_nothing(taken_over, monkeypatch):
    workspace, made = taken_over
    monkeypatch.setattr(unit_records, "BATCH", 2)
    unlink, n_left = Path.unlink, iter(range(3))

    def killed(path, **options):
        if next(n_left, None) is None:
            raise KeyboardInterrupt
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        artifact(workspace, "explain/new").get(REPLIES, "ab/0")
    monkeypatch.setattr(Path, "unlink", unlink)
    found = artifact(workspace, "explain/new").get_many(REPLIES, [f"ab/{n}" for n in range(7)])
    assert found == {f"ab/{n}": made[f"replies/ab/{n}"] for n in range(7)}
    assert units.unused(workspace).records == {} and not list(workspace.glob("units/*/*/*.json"))[1:]
