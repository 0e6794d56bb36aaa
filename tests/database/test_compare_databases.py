"""The tool that compares the databases of two runs (tests/compare_databases.py)."""

import shutil

import compare_databases
import pytest
from worlds import tiny_experiment as world

from cltdb.database.rebuild import rebuild
from cltdb.database.store import connect


@pytest.fixture
def other(database, tmp_path):
    """Path of a second copy."""
    return shutil.copy(database, tmp_path / "other.duckdb")


def change(path, *statements):
    with connect(path, write=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_rebuild_in_another_order_and_at_another_time_is_the_same(database, artifacts, other, capsys):
    runs = [{**run, "run_id": f"{run['run_id']}-later", "seconds": 7.0, "host": "h"} for run in world.RECORDS["stage_runs"]]
    experiments = world.RECORDS["experiments"]
    rebuild(other, artifacts=artifacts[-2::-1], unfinished=artifacts[-1:], experiments=experiments, stage_runs=runs)
    assert compare_databases.main([str(database), str(other)]) == 0
    assert capsys.readouterr().out == "the databases hold the same rows\n"


def test_the_first_differences_are_said_with_their_values(database, other, capsys):
    change(
        other,
        "UPDATE nodes SET influence = 0.25 WHERE node_id = 0",
        "DELETE FROM models",
        "INSERT INTO edges (graph_id, source_id, target_id) SELECT graph_id, 2, 5 FROM graphs",
        "UPDATE stage_runs SET seconds = 99",
        "ALTER TABLE vocabulary ADD COLUMN n BIGINT",
        "CREATE TABLE extra (a INTEGER)",
    )
    assert compare_databases.main([str(database), str(other)]) == 1
    said = capsys.readouterr().out
    for line in (
        "extra: only in B",
        "vocabulary.n: only in B",
        "nodes: 1 rows differ (6 in A, 6 in B)",
        "influence 0.5 in A, 0.25 in B",
        "only in A: model_id='toy'",
        "only in B: graph_id='france-aaaa1111', source_id=2, target_id=5",
    ):
        assert line in said
    assert "seconds" not in said and "features" not in said


def test_rows_are_counted_not_only_found(database, other):
    change(other, "INSERT INTO models SELECT * FROM models")
    assert compare_databases.differences(database, other)[0] == "models: 1 rows differ (1 in A, 2 in B)"


def test_floats_within_rtol_are_equal_in_lists_too(database, other):
    change(
        other,
        "UPDATE nodes SET influence = influence * (1 + 1e-7)",
        "UPDATE windows SET activations = list_transform(activations, lambda a: a * 1.0001)",
        "UPDATE scores SET n = n + 1 WHERE scorer = 'fuzzing'",
    )
    found = {
        rtol: {line.partition(":")[0] for line in compare_databases.differences(database, other, rtol=rtol) if line[0] != " "}
        for rtol in (0.0, 1e-5, 1e-3)
    }
    assert found == {0.0: {"nodes", "windows", "scores"}, 1e-5: {"windows", "scores"}, 1e-3: {"scores"}}
    assert compare_databases.differences(database, other, rtol=1e-3, leave_out=["scores.n"]) == []


def test_what_is_no_database_is_status_2(database, tmp_path, capsys):
    (tmp_path / "text").write_text("no database" * 1000)
    for bad in ("text", "missing"):
        assert compare_databases.main([str(database), str(tmp_path / bad)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
