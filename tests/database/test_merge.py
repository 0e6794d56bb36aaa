"""Databases of several machines as one."""

import shutil
import signal
import subprocess
import sys

import pytest
from command_line import in_one_form
from compare_databases import differences
from worlds import tiny_experiment as world
from worlds.tables import contents, write_artifact

from cltdb.__main__ import main
from cltdb.database import store
from cltdb.database.export import export
from cltdb.database.load import load_artifacts, save_records, unload_artifact
from cltdb.database.merge import merge
from cltdb.database.store import connect
from cltdb.errors import CltdbError

OTHER = "other-plt-89abcdef"


@pytest.fixture
def unchecked(monkeypatch):
    """What is merged is not checked, which other tests do."""
    monkeypatch.setattr("cltdb.database.merge.check", lambda _: [])


def run_of(name, **changes):
    return world.RUN | {"run_id": f"run-{name}", "experiment": "tiny", "spec_hash": "h1", "stage": "train", "key": "k"} | changes


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """(database of the one, of the other, of a run over both): they share the model; each trained a dictionary; the second explained features of
    the first's again and went on with a training that the first had not finished. Both linked one spec to an artifact, the first one later."""
    root = tmp_path_factory.mktemp("machines")

    def artifact(key, tables, **options):
        return write_artifact(root / "artifacts", key, tables, **options)

    again = {table: [row for row in rows if row["layer"] == 0] for table, rows in world.explain_tables(text="again").items()}
    some = [row for row in world.metric_table("train", OTHER) if row["step"] < 2]
    shared = [artifact("model", world.model_tables()), artifact("train", world.train_tables())]
    shared.append(artifact("harvest", {"features": world.feature_table(), "contexts": world.context_table()}))
    first = [artifact("explain", world.explain_tables()), artifact("graph", world.graph_tables())]
    second = [artifact("again", again, started_at="2026-03-01T00:00:00+00:00"), artifact("other", world.train_tables(OTHER))]
    second.append(artifact("edges", {"feature_edges": world.feature_edge_table()}))
    unfinished = [write_artifact(root / "begun", "other", {"metrics": some}, started_at=None)]
    paths = [root / name for name in ("first.duckdb", "second.duckdb", "both.duckdb")]
    links = [run_of("link", run_id="tiny-h1-train-k-cached", started_at=f"2026-03-0{day}T00:00:00+00:00") for day in (2, 1)]
    runs = [[run_of("a"), run_of("b", status="running", seconds=None), links[0]], [run_of("b"), run_of("c"), links[1]]]
    experiments = [world.RECORDS["experiments"][:1], world.RECORDS["experiments"]]
    load_artifacts(paths[0], [*shared, *first, *unfinished])
    load_artifacts(paths[1], [*reversed(shared), *second])
    load_artifacts(paths[2], [*second, *first, *shared])
    for path, experiment, run in zip(paths, experiments, runs, strict=False):
        save_records(path, experiments=experiment, stage_runs=run)
    save_records(paths[2], experiments=experiments[1], stage_runs=[run_of("a"), *runs[1][:2], links[0]])
    return paths


def test_the_merged_database_is_that_of_a_run_over_both(machines, tmp_path, monkeypatch):
    """In whatever order they are given. The first merge checks what it made; the second makes the same."""
    *sources, both = machines
    before = [path.read_bytes() for path in sources]
    assert merge(sources, tmp_path / "all.duckdb") == (8, 3, [])
    assert any("again" in row for row in contents(tmp_path / "all.duckdb")["explanations"])
    monkeypatch.setattr("cltdb.database.merge.check", lambda _: [])
    assert merge(sources[::-1], tmp_path / "reversed.duckdb") == (8, 3, [])
    for merged in ("all.duckdb", "reversed.duckdb"):
        assert differences(tmp_path / merged, both) == []
        with connect(tmp_path / merged) as connection:
            linked = connection.execute("SELECT started_at FROM stage_runs WHERE run_id LIKE '%-cached'").fetchall()
        assert [str(at) for (at,) in linked] == ["2026-03-02 00:00:00"]
    assert [path.read_bytes() for path in sources] == before and len(list(tmp_path.glob(".*"))) == 0


def test_rows_of_every_table_are_merged(random_world, tmp_path, unchecked):
    """A check finds that they are random."""
    whole, rows = random_world[0].path, random_world[1]
    for name, lacks in (("first", "old-key"), ("second", "all-key")):
        unload_artifact(shutil.copy(whole, tmp_path / name), key=lacks)
    merge([tmp_path / "first", tmp_path / "second"], tmp_path / "all")
    assert {"paths", "path_steps", "feature_labels", "group_prompts", "input_edges"} <= rows.keys()
    assert {"annotations", "annotation_events"} <= {name for name, content in contents(tmp_path / "all").items() if content}
    assert differences(tmp_path / "all", whole) == []


def test_exported_folders_are_merged_as_databases_are(machines, tmp_path, unchecked):
    first, second, both = machines
    export(second, tmp_path / "second")
    merge([first, tmp_path / "second"], tmp_path / "all.duckdb")
    merge([tmp_path / "all.duckdb", second], tmp_path / "again.duckdb")  # a database that was merged is one as any
    assert differences(tmp_path / "again.duckdb", both) == []


def test_databases_of_an_earlier_cltdb_are_merged_and_stay_as_they_are(machines, tmp_path, unchecked, monkeypatch):
    """One alone is so brought up to date: a merged one has no project in which a run does it."""
    first, second, both = machines
    later = store.migrations() | {"9999_later.sql": "SELECT 1"}
    before = [path.read_bytes() for path in (first, second)]
    monkeypatch.setattr(store, "migrations", lambda: later)
    with (
        pytest.raises(CltdbError, match="found a database without 9999_later.sql; .* `cltdb db merge` makes a new one"),
        connect(first),
    ):
        pass
    merge([first, second], tmp_path / "all.duckdb")
    with connect(tmp_path / "all.duckdb") as connection:
        assert store.applied(connection) == list(later)
    monkeypatch.undo()
    assert differences(tmp_path / "all.duckdb", both) == []
    assert [path.read_bytes() for path in (first, second)] == before and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE features SET density = 0.5 WHERE layer = 1", r"artifact harvest: found other rows in .*first.*second.*features: 3 rows, .*layer 1, feature 0"),
        ("DELETE FROM vocabulary WHERE token = 7", r"artifact model: found other rows.*vocabulary: 1 row, such as .*token 7"),
        ("UPDATE loaded_parts SET complete = false WHERE part = 'features/part'", r"second.duckdb: found features/part of artifact harvest only partly"),
        ("UPDATE stage_runs SET status = 'failed' WHERE run_id = 'run-a'", r"run run-a: found another record in .* than in "),
    ],
)  # fmt: skip
def test_other_content_under_the_same_key_is_refused(machines, tmp_path, change, said):
    first = machines[0]
    second = shutil.copy(machines[1] if "run-a" not in change else first, tmp_path / "second.duckdb")
    with connect(second, write=True) as connection:
        connection.execute(change)
    with pytest.raises(CltdbError, match=said):
        merge([first, second], tmp_path / "all.duckdb")
    assert not list(tmp_path.glob("*all.duckdb*"))


def test_what_tells_of_the_run_alone_is_no_conflict(machines, tmp_path, unchecked):
    first = machines[0]
    second = shutil.copy(first, tmp_path / "second.duckdb")
    with connect(second, write=True) as connection:
        connection.execute("UPDATE graphs SET seconds = 99; UPDATE dictionaries SET path = '/elsewhere'")
    merge([first, second], tmp_path / "all.duckdb")
    assert differences(tmp_path / "all.duckdb", first) == []


KILLED = """
import os, signal, sys
from cltdb.database import merge
merge.copy_embeddings = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # after most tables
merge.merge(sys.argv[2:], sys.argv[1])
"""


def test_the_damaged_one_of_several_is_named(machines, tmp_path):
    (tmp_path / "other.duckdb").write_text("no database")
    with pytest.raises(CltdbError, match=r"^[^:]*other.duckdb: found a damaged database"):
        merge([machines[0], tmp_path / "other.duckdb"], tmp_path / "all.duckdb")
    with pytest.raises(CltdbError, match="nosuch.duckdb: found nothing there"):
        merge([machines[0], tmp_path / "nosuch.duckdb"], tmp_path / "all.duckdb")
    assert not list(tmp_path.glob(".all.duckdb*"))


def test_killed_in_between_nothing_is_lost(machines, tmp_path, unchecked):
    """The target is not there or whole, the sources stay, and the next attempt succeeds."""
    *sources, both = machines
    before, target = [path.read_bytes() for path in sources], tmp_path / "all.duckdb"
    assert subprocess.run([sys.executable, "-c", KILLED, target, *sources]).returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".all.duckdb.merging*"))
    assert not target.exists() and [path.read_bytes() for path in sources] == before
    merge(sources, target)
    assert differences(target, both) == []


def test_problems_are_all_said_and_may_be_merged_as_they_are(machines, tmp_path, monkeypatch, capsys):
    shutil.copy(machines[0], tmp_path / "wrong.duckdb")
    with connect(tmp_path / "wrong.duckdb", write=True) as connection:
        connection.execute("UPDATE features SET density = 3; UPDATE dictionaries SET n_features = 1")
    monkeypatch.chdir(tmp_path)
    asked = ["db", "merge", "wrong.duckdb", "-o", "all.duckdb"]
    assert main(asked) == 1 and not (tmp_path / "all.duckdb").exists()
    said = capsys.readouterr()
    assert "cltdb db check --from" in in_one_form(said.err)
    assert "features: 6 rows" in said.out and "dictionaries: 1 row" in said.out
    assert main(["db", "check", "--from", "wrong.duckdb"]) == 1 and "expected density from 0 to 1" in capsys.readouterr().out
    assert main(["db", "check", "--from", str(machines[1])]) == 0
    assert main([*asked, "--despite-problems"]) == 0 and "problems, listed above" in capsys.readouterr().out
    assert main(["sql", "SELECT max(density) AS most FROM features", "--from", "all.duckdb"]) == 0


def test_the_command(machines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sources = [str(path) for path in machines[:2]]
    assert main(["db", "merge", *sources, "-o", "all.duckdb"]) == 0
    assert "8 artifacts, 3 of them in several" in capsys.readouterr().out
    assert main(["db", "merge", *sources, "-o", "all.duckdb"]) == 1
    assert "already" in capsys.readouterr().err
    assert main(["sql", "SELECT count(*) AS n FROM dictionaries", "--from", "all.duckdb"]) == 0
    assert capsys.readouterr().out == "n\n2\n"
