import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from worlds import tiny_experiment as world
from worlds.tables import contents, write_artifact

from cltdb.database import parts as parts_module
from cltdb.database.api import Database
from cltdb.database.check import check
from cltdb.database.load import lacks, load_artifact, save_records, unload_artifact
from cltdb.database.rebuild import rebuild
from cltdb.engine.workspace import write_parquet
from cltdb.errors import CltdbError


def test_loading_twice_changes_nothing(database, artifacts):
    before = contents(database, leave_out=())
    assert sum(load_artifact(database, key=key, directory=directory) for key, directory in artifacts) == 0
    assert contents(database, leave_out=()) == before
    assert check(database, artifacts=artifacts) == []
    assert lacks(database, artifacts) == ([], False)


def test_rebuild_equals_incremental_loading(database, artifacts):
    before = contents(database)
    rebuild(database, artifacts=list(reversed(artifacts)), **world.RECORDS)
    assert contents(database) == before
    assert not list(database.parent.glob("*.rebuild"))


def test_rows_of_several_artifacts_are_the_same_in_any_order(tmp_path):
    made = [
        write_artifact(tmp_path / "a", "model-a", world.model_tables()),
        write_artifact(tmp_path / "a", "model-b", world.model_tables()),
        write_artifact(
            tmp_path / "a", "harvest-old", {"contexts": world.context_table(3)}, started_at="2026-01-02T00:00:00+00:00"
        ),
        write_artifact(
            tmp_path / "a", "harvest-new", {"contexts": world.context_table(1)}, started_at="2026-01-02T00:00:01+00:00"
        ),
    ]
    outcomes = []
    for i, order in enumerate(([0, 1, 2, 3], [3, 2, 1, 0], [2, 1, 3, 0])):
        path = tmp_path / f"{i}.duckdb"
        for key, directory in (made[place] for place in order):
            load_artifact(path, key=key, directory=directory)
        outcomes.append(contents(path))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert len(outcomes[0]["vocabulary"]) == len(world.WORDS) and len(outcomes[0]["models"]) == 1
    assert len(outcomes[0]["windows"]) == len(world.context_table(1))  # the newer harvest, whole


def test_unloading_a_later_artifact_brings_the_earlier_one_back(tmp_path):
    path = tmp_path / "db.duckdb"
    old = write_artifact(tmp_path / "a", "old", world.explain_tables(text="old"), started_at="2026-01-01T00:00:00+00:00")
    load_artifact(path, key=old[0], directory=old[1])
    before = contents(path)
    new = write_artifact(
        tmp_path / "a",
        "new",
        world.explain_tables(scorers=("detection",), text="new"),
        started_at="2026-02-01T00:00:00+00:00",
    )
    load_artifact(path, key=new[0], directory=new[1])
    assert all("new" in row for row in contents(path)["explanations"])
    assert unload_artifact(path, key="new") == ["old"]
    assert lacks(path, [old]) == (["old"], False)
    load_artifact(path, key=old[0], directory=old[1])
    assert contents(path) == before


def test_a_remade_artifact_replaces_itself(tmp_path):
    path = tmp_path / "db.duckdb"
    for n_ranks in (3, 1):
        key, directory = write_artifact(tmp_path / "a", "harvest", {"contexts": world.context_table(n_ranks)})
        unload_artifact(path, key=key)
        load_artifact(path, key=key, directory=directory)
        assert len(contents(path)["windows"]) == len(world.context_table(n_ranks))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_part_is_named_and_the_rest_stays(tmp_path, damage):
    key, directory = write_artifact(
        tmp_path / "a", "k", {"features": world.feature_table(), "models": world.model_tables()["models"]}
    )
    bad = directory / "tables/features/part.parquet"
    whole = bad.read_bytes()
    bad.write_bytes({"truncated": whole[:-20], "empty": b"", "text": b"hello" * 100}[damage])
    path = tmp_path / "db.duckdb"
    with pytest.raises(CltdbError, match="features/part.parquet"):
        load_artifact(path, key=key, directory=directory)
    assert len(contents(path)["models"]) == 1 and contents(path)["features"] == []
    bad.write_bytes(whole)
    assert load_artifact(path, key=key, directory=directory) == 6


@pytest.mark.parametrize(
    ("table", "rows", "says"),
    [
        ("models", {"model_id": ["m"], "revision": ["r"], "colour": ["red"]}, "colour"),
        ("models", {"model_id": ["m"]}, "revision"),
        ("models", {"model_id": ["m"], "revision": ["r"], "n_layers": ["many"]}, "models"),
        ("models", {"model_id": [None], "revision": ["r"]}, "models"),
        ("secrets", {"a": [1]}, "secrets"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, table, rows, says):
    key, directory = write_artifact(tmp_path / "a", "k", {table: pa.table(rows)})
    with pytest.raises(CltdbError, match=says) as caught:
        load_artifact(tmp_path / "db.duckdb", key=key, directory=directory)
    assert "\n" not in str(caught.value)


def test_columns_are_matched_by_name_and_times_become_utc(tmp_path):
    from datetime import datetime, timedelta, timezone

    tables = world.explain_tables()
    when = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    rows = [dict(reversed((row | {"created_at": when}).items())) for row in tables["explanations"]]
    key, directory = write_artifact(tmp_path / "a", "k", {"explanations": rows})
    load_artifact(tmp_path / "db.duckdb", key=key, directory=directory)
    frame = Database(tmp_path / "db.duckdb").explanations(world.DICT)
    assert frame["created_at"][0] == datetime(2026, 1, 1, 10) and frame["side"].unique().to_list() == ["input"]


def test_a_large_part_arrives_in_chunks_and_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(parts_module, "CHUNK_BYTES", 1)  # the least: 1,000 rows
    n = 4500
    rows = [{"dict_id": "d", "stage": "train", "step": step, "layer": None, "name": "loss", "value": 1.0} for step in range(n)]
    key, directory = write_artifact(tmp_path / "a", "k", {"metrics": rows})
    path = tmp_path / "db.duckdb"
    real, calls = parts_module.load_chunk, []

    def dies_at_third(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr("cltdb.database.load.load_chunk", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        load_artifact(path, key=key, directory=directory)
    assert any("partly loaded" in problem for problem in check(path))
    monkeypatch.setattr("cltdb.database.load.load_chunk", real)
    assert load_artifact(path, key=key, directory=directory) == 2500
    assert Database(path).sql("SELECT count(*) AS n, count(DISTINCT step) AS steps FROM metrics").row(0) == (n, n)


def test_small_parts_fill_chunks_of_whole_row_groups_and_are_known_one_by_one(tmp_path, monkeypatch):
    """Parts of 700, 1 and 900 rows in chunks of 400, killed after each of them in turn."""
    monkeypatch.setattr(parts_module, "_rows_at_once", lambda rows: (400, 122_880))
    of_part, first = {}, 0
    for name, n in (("a", 700), ("b", 1), ("c", 900)):
        rows = {
            "dict_id": ["d"] * n,
            "stage": ["train"] * n,
            "step": range(first, first + n),
            "layer": pa.nulls(n, pa.int32()),
            "name": ["loss"] * n,
            "value": [1.0] * n,
        }
        write_parquet(tmp_path / f"k/tables/metrics/{name}.parquet", pa.table(rows))
        of_part[f"metrics/{name}"], first = n, first + n
    real, sizes = parts_module.load_chunk, []

    def dies_after_one(connection, chunk, **keywords):
        if len(sizes) % 2:
            sizes.append(0)
            raise KeyboardInterrupt
        sizes.append(real(connection, chunk, **keywords))
        return sizes[-1]

    monkeypatch.setattr("cltdb.database.load.load_chunk", dies_after_one)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            load_artifact(tmp_path / "db.duckdb", key="k", directory=tmp_path / "k")
    load_artifact(tmp_path / "db.duckdb", key="k", directory=tmp_path / "k")
    assert sizes == [400, 0, 400, 0, 400, 0, 400, 0, 1]
    db = Database(tmp_path / "db.duckdb")
    assert db.sql("SELECT count(*), count(DISTINCT step) FROM metrics").row(0) == (1601, 1601)
    assert dict(db.sql("SELECT part, rows FROM loaded_parts WHERE complete").rows()) == of_part


@pytest.mark.parametrize(
    ("width", "chunks", "groups"), [(4, [16_384, 4616], [8192, 8192, 4616]), (150, [4096] * 5 + [520], [4096] * 5 + [520])]
)
def test_a_chunk_of_a_large_load_is_whole_row_groups_the_smaller_the_wider_rows_are(tmp_path, monkeypatch, width, chunks, groups):
    monkeypatch.setattr(parts_module, "CHUNK_BYTES", 900_000)
    monkeypatch.setattr(parts_module, "ROW_GROUPS", (8192, 4096))
    monkeypatch.setattr("cltdb.database.load.ROW_GROUPS", (8192, 4096))
    monkeypatch.setattr("cltdb.database.load.LARGE_BYTES", 0)
    n = 21_000
    rows = {"dict_id": ["d"] * n, "stage": ["train"] * n, "step": range(n), "name": ["x" * width] * n, "value": [1.0] * n}
    write_parquet(tmp_path / "k/tables/metrics/metrics.parquet", pa.table(rows).append_column("layer", pa.nulls(n, pa.int32())))
    real, sizes = parts_module.load_chunk, []
    monkeypatch.setattr(
        "cltdb.database.load.load_chunk", lambda *given, **named: (sizes.append(real(*given, **named)), sizes[-1])[1]
    )
    load_artifact(tmp_path / "db.duckdb", key="k", directory=tmp_path / "k")
    assert sizes == chunks
    assert row_groups(tmp_path / "db.duckdb", "metrics", "step") == groups


def row_groups(path, table, column):
    """Rows of the row groups of a table, in their order."""
    sql = (
        f"SELECT sum(count)::INTEGER FROM pragma_storage_info('{table}') WHERE column_name = '{column}' AND segment_type <> 'VALIDITY'"
        " GROUP BY row_group_id ORDER BY row_group_id"
    )
    return [n for (n,) in Database(path).sql(sql).rows()]


KILLED = """
import os, signal, sys
from cltdb.database import load, parts
path, directory, place = sys.argv[1:]
load_chunk = load.load_chunk

def killed(connection, chunk, **options):
    found = load_chunk(connection, chunk, **options)
    if chunk.pieces[0].part.name == f"metrics/{place}":  # within a transaction
        os.kill(os.getpid(), signal.SIGKILL)
    return found

load.load_chunk, parts.CHUNK_BYTES = killed, 1
load.load_artifact(path, key="k", directory=directory)
"""


def test_a_killed_load_is_completed_by_the_next(tmp_path):
    n = 60_000
    rows = pa.table({"dict_id": ["d"] * n, "stage": ["train"] * n, "step": range(n), "name": ["loss"] * n, "value": [1.0] * n})
    rows = rows.append_column("layer", pa.array([0] * n, pa.int32()))
    write_parquet(tmp_path / "k/tables/metrics/a.parquet", rows.slice(0, n // 2))
    write_parquet(tmp_path / "k/tables/metrics/b.parquet", rows.slice(n // 2))
    path = tmp_path / "db.duckdb"
    for place in "ab":
        command = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "k"), place]
        assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    load_artifact(path, key="k", directory=tmp_path / "k")
    whole = tmp_path / "whole.duckdb"
    load_artifact(whole, key="k", directory=tmp_path / "k")
    assert contents(path, leave_out=()) == contents(whole, leave_out=())
    assert Database(path).sql("SELECT count(*) AS n FROM metrics").item() == n


def test_records_are_written_over_by_run_id(database):
    save_records(
        database,
        experiments=[{**world.RECORDS["experiments"][0], "spec_yaml": "other"}],
        stage_runs=[{**world.RECORDS["stage_runs"][0], "status": "failed", "error": "it's; DROP TABLE stage_runs"}],
    )
    db = Database(database)
    assert db.sql("SELECT spec_yaml FROM experiments WHERE spec_hash = 'h1'")["spec_yaml"].to_list() == ["name: tiny"]
    assert db.sql("SELECT status, error FROM stage_runs ORDER BY run_id").rows()[0] == (
        "failed",
        "it's; DROP TABLE stage_runs",
    )
    assert db.sql("SELECT json_extract_string(versions, '$.cltdb') AS v FROM stage_runs")["v"].to_list() == ["0", "0"]


def test_an_experiment_keeps_its_sweep_once_it_has_one(database):
    plain, point = world.RECORDS["experiments"]
    for swept in ({"train.l0": 4}, {"train.l0": 5}):
        save_records(database, experiments=[{**plain, "sweep": "later", "swept": swept}, {**point, "sweep": None}], stage_runs=[])
    rows = Database(database).sql("SELECT spec_hash, sweep, swept FROM experiments ORDER BY ALL").rows()
    assert rows == [("h1", "later", '{"train.l0": 4}'), ("h2", "tiny", '{"train.l0": 4}')]
