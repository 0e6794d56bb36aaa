"""Rows that stream: `db.arrow`, and `db.scan` against the whole table filtered by Polars."""

import subprocess
import sys
import threading

import polars as pl
import pytest
from command_line import PATIENCE_S
from worlds import tiny_experiment as world

from cltdb.database import lazy, stream
from cltdb.database.api import Database
from cltdb.database.store import connect
from cltdb.errors import CltdbError

MANY = "SELECT i AS x, repeat('x', 20) || i AS s FROM range(400_000) AS r(i)"
c = pl.col


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """(path of a database with a table of all kinds of values in which comparisons go wrong, its rows)."""
    path = tmp_path_factory.mktemp("values") / "cltdb.duckdb"
    numbers = "0.1::FLOAT, -0.0::FLOAT, 0.0::FLOAT, 'NaN'::FLOAT, 'Infinity'::FLOAT, NULL, 0.3::FLOAT"
    with connect(path, write=True) as connection:
        connection.execute(
            "CREATE TABLE of_values AS SELECT number::FLOAT AS f, number::DOUBLE AS d, i::INTEGER AS i, s, i % 2 = 0 AS b, [i, i + 1] AS list"
            f" FROM (SELECT unnest([{numbers}]) AS number) CROSS JOIN (SELECT unnest([0, 1, 2, NULL]) AS i)"
            " CROSS JOIN (SELECT unnest(['a', 'A', 'é', '%', '''', NULL, '']) AS s)"
        )
    return path, Database(path).sql("FROM of_values")


FILTERS = {
    "f <= 0.1": c("f") <= 0.1,  # 0.1 as a float32 is larger than 0.1
    "f as float64": c("f") <= pl.lit(0.1, dtype=pl.Float64),
    "f is not 0": c("f") != 0,
    "d > 1, NaN too": c("d") > 1,
    "d is NaN": c("d") == float("nan"),
    "d is no NaN": c("d").is_not_nan(),
    "value first": pl.lit(1) < c("i"),
    "i <= 1.5": c("i") <= 1.5,
    "i out of range": c("i") == 2**40,
    "one of": c("i").is_in([1, 2, None]),
    "one of texts": c("s").is_in(["a", "'", "%"]),
    "one of floats": c("f").is_in([0.1, float("inf")]),
    "one of none": c("i").is_in([]),
    "none of": ~c("s").is_in(["a"]),
    "between": c("i").is_between(0, 2, closed="right"),
    "null": c("s").is_null() & c("i").is_not_null(),
    "bool": c("b"),
    "not": ~c("b"),
    "missing": c("i").ne_missing(1),
    "both": (c("i") > 0) & (c("s") == "a"),
    "half of it": (c("i") > 0) & (c("s").str.to_lowercase() == "a"),
    "either": (c("i") == 0) | (c("s") == "é"),
    "either half": (c("i") == 0) | (c("s").str.len_bytes() == 0),
    "neither": ~((c("i") == 0) | (c("s") == "é")),
    "starts": c("s").str.starts_with(""),
    "contains": c("s").str.contains("'", literal=True),
    "pattern": c("s").str.contains("^a"),
    "list": c("list").list.get(0) == 1,
    "two columns": c("f") == c("d"),
    "exclusive or": c("b") ^ (c("i") == 1),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_filter_keeps_the_rows_that_polars_keeps(values, name, engine):
    path, whole = values
    lazy_frame, order = lazy.scan(path, "of_values"), ["f", "d", "i", "s"]
    expected = whole.filter(FILTERS[name]).sort(order)
    assert lazy_frame.filter(FILTERS[name]).collect(engine=engine).sort(order).equals(expected)
    assert lazy_frame.filter(FILTERS[name]).select("s").collect(engine=engine).height == expected.height


@pytest.mark.parametrize(
    ("plan", "sql", "params"),
    [
        (lambda t: t.filter(c("density") > 0.5).select("feature"),
         'SELECT "feature", "density" FROM features WHERE "density" > ?::{0}', [0.5]),
        (lambda t: t.filter(c("layer") == 1, c("density").round(1) > 0.5).select("feature"),
         'SELECT "layer", "feature", "density" FROM features WHERE ("layer" = ?::INTEGER)', [1]),
        (lambda t: t.filter((c("layer") == 1) | (c("density").round(1) > 0.5)).select("feature"),
         'SELECT "layer", "feature", "density" FROM features', []),
        (lambda t: t.filter(c("layer").is_in([0, 1])).select("layer"), 'SELECT "layer" FROM features WHERE "layer" IN (?, ?)', [0, 1]),
        (lambda t: t.head(3).filter(c("layer") == 1).select("layer"),
         'SELECT "layer" FROM (FROM features LIMIT 3) WHERE "layer" = ?::INTEGER', [1]),
    ],
)  # fmt: skip
def test_duckdb_is_asked_for_what_the_plan_needs(database, plan, sql, params, monkeypatch):
    asked, question = [], lazy.question
    monkeypatch.setattr(lazy, "question", lambda *given: asked.append(question(*given)) or asked[-1])
    db = Database(database)
    found = plan(db.scan("features")).collect()
    density = {pl.Float32: "FLOAT", pl.Float64: "DOUBLE"}[db.features(world.DICT)["density"].dtype]
    assert asked == [(sql.format(density), params)]
    assert found.sort("*").equals(plan(db.sql("FROM features").lazy()).collect().sort("*"))


def test_every_table_and_view_can_be_scanned(database):
    db = Database(database)
    for table in ("features", "contexts", "feature_cards", "named_edges", "loaded_artifacts"):
        whole = db.sql(f"FROM {table}")
        assert db.scan(table).collect_schema() == whole.schema
        assert db.scan(table).collect().height == whole.height == db.scan(table).select(pl.len()).collect().item() > 0
    with pytest.raises(
        CltdbError, match="scan: found no table 'contxts'; expected a table or view; do this: did you mean contexts?"
    ):
        db.scan("contxts")


def test_a_reader_that_keeps_up_leaves_no_file_and_an_early_end_leaves_the_database(database, monkeypatch):
    monkeypatch.setattr(stream._Spool, "__init__", None)  # would fail
    monkeypatch.setattr(stream, "PATIENCE_S", PATIENCE_S)
    rows = Database(database).arrow(MANY)
    assert sum(batch.num_rows for batch in rows) == 400_000
    rows = Database(database).arrow(MANY)
    next(rows)
    del rows
    with connect(database, write=True, timeout_s=PATIENCE_S):
        pass
    assert [thread.name for thread in threading.enumerate() if thread.name == "cltdb stream"] == []


@pytest.mark.parametrize("n_read", [0, 1])
def test_a_reader_that_takes_its_time_keeps_no_writer_out(database, n_read, monkeypatch):
    monkeypatch.setattr(stream, "PATIENCE_S", 0.1)
    rows = Database(database).arrow(MANY)
    found = [next(rows) for _ in range(n_read)]
    with connect(database, write=True, timeout_s=PATIENCE_S) as connection:
        connection.execute("UPDATE features SET density = 0.25")
    found += list(rows)
    assert [x for batch in found for x in (batch["x"][0].as_py(), batch["x"][-1].as_py())][:: len(found) * 2 - 1] == [0, 399_999]
    assert sum(batch.num_rows for batch in found) == 400_000


def test_a_lazy_frame_that_streams_into_a_slow_sink_keeps_no_writer_out(database, monkeypatch):
    monkeypatch.setattr(stream, "PATIENCE_S", 0.1)
    with connect(database, write=True) as connection:
        connection.execute(
            "INSERT INTO features BY NAME SELECT 'many' AS dict_id, 0 AS layer, i AS feature FROM range(400_000) AS r(i)"
        )
    started, written = threading.Event(), threading.Event()

    def slow(frame):
        started.set()
        assert written.wait(PATIENCE_S)
        return frame

    def write():
        started.wait()
        with connect(database, write=True, timeout_s=PATIENCE_S):
            written.set()

    writer = threading.Thread(target=write)
    writer.start()
    plan = Database(database).scan("features").filter(dict_id="many").select("feature").map_batches(slow, streamable=True)
    assert plan.select(pl.len(), pl.col("feature").max()).collect(engine="streaming").row(0) == (400_000, 399_999)
    writer.join()


def test_errors_are_said_where_they_are_met(database):
    with pytest.raises(CltdbError, match="sql: found .*nope"):
        Database(database).arrow("SELECT nope")
    late = Database(database).arrow(
        "SELECT CASE WHEN i = 190_000 THEN error('late') ELSE 'x' END AS e FROM range(200_000) AS r(i)"
    )
    with pytest.raises(CltdbError, match="late"):
        list(late)


def test_a_process_may_end_with_rows_unread(database):
    script = f"import cltdb; rows = cltdb.open({str(database)!r}).arrow({MANY!r}); next(rows); print('end')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_in_a_session_rows_that_stream_leave_the_connection_to_others(database):
    with Database(database).session() as session:
        rows, plan = session.arrow(MANY), session.scan("features").filter(layer=0)
        first = next(rows).num_rows
        assert session.sql("SELECT 1").item() == 1 and plan.collect().height == session.features(world.DICT, layer=0).height
        assert first + sum(batch.num_rows for batch in rows) == 400_000
