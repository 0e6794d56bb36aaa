"""The schema is the one place that declares a table (cltdb/database/schema/README.md)."""

import re
import shutil
import sys

import numpy as np
import polars as pl
import pytest
from command_line import ROOT
from worlds import tiny_experiment as world
from worlds.tables import contents, rows, write_artifact

from cltdb.database import named_queries, store, tables
from cltdb.database.api import Database
from cltdb.database.check import check
from cltdb.database.export import export
from cltdb.database.load import load_artifact
from cltdb.database.rebuild import rebuild
from cltdb.database.tables import Reference, all_tables, arrow_schema, loaded_tables, undeclared
from cltdb.errors import CltdbError
from cltdb.intervals import wilson
from cltdb.stages import STAGES

EXAMPLE_QUERY = """-- The label that each feature fires on most.
-- Grain: one row per dict_id, layer, feature.
-- Order: dict_id, layer, feature.
-- Reads: example_labels.
-- Parameters:
--   $min_share: number = 0  at least this share (0 to 1)

SELECT dict_id, layer, feature, max_by(label, share) AS label FROM example_labels
WHERE share >= $min_share::DOUBLE GROUP BY ALL ORDER BY ALL
"""


@pytest.fixture
def schema(tmp_path, monkeypatch):
    """A function that adds a migration, of the next number, to copies of the folders schema/ and queries/."""
    for module, name in ((store, "SCHEMA"), (named_queries, "QUERIES")):
        monkeypatch.setattr(module, name, shutil.copytree(getattr(module, name), tmp_path / name))

    def add(sql):
        number = int(max(store.migrations())[:4]) + 1
        (store.SCHEMA / f"{number:04}_example.sql").write_text(sql)

    return add


def readme_example():
    return re.search(r"```sql\n(.*?)```", (ROOT / "cltdb/database/schema/README.md").read_text(), re.DOTALL)[1]


def label_artifact(root, key, shares, **options):
    """An artifact with the rows of example_labels: (layer, feature, label, share)."""
    table = rows("layer feature label share", shares, dict_id=world.DICT)
    return write_artifact(root, key, {"example_labels": table}, **options)


def test_a_table_is_one_migration_and_nothing_else(database, artifacts, tmp_path, schema, monkeypatch):
    """Loaded, replaced, checked, exported, rebuilt, asked and documented."""
    schema(readme_example())
    (named_queries.QUERIES / "example_labels.sql").write_text(EXAMPLE_QUERY)
    made = [
        label_artifact(tmp_path / "a", "old", [(0, 0, "en", 1.0), (0, 1, "en", 1.0)], started_at="2026-01-02T00:00:00+00:00"),
        label_artifact(tmp_path / "a", "new", [(0, 0, "en", 0.2), (0, 0, "fr", 0.8)], started_at="2026-01-03T00:00:00+00:00"),
    ]
    with pytest.raises(CltdbError, match=r"\d_example"):  # an old database is brought up to date by the next that writes
        Database(database).query("example_labels")
    for key, directory in made:
        load_artifact(database, key=key, directory=directory)
    assert Database(database).query("example_labels").rows() == [
        (world.DICT, 0, 0, "fr")
    ]  # the older artifact's rows are replaced whole
    assert check(database, artifacts=[*artifacts, *made], full=True) == []
    before = contents(database)
    rebuild(database, artifacts=[*made[::-1], *artifacts], **world.RECORDS)
    assert contents(database) == before

    export(database, tmp_path / "out")
    back = pl.read_parquet(tmp_path / f"out/example_labels/dict_id={world.DICT}/*.parquet")
    assert sorted(back["share"]) == [0.2, 0.8]

    key, directory = label_artifact(tmp_path / "a", "lost", [(7, 0, "en", 1.5)], started_at="2026-01-04T00:00:00+00:00")
    load_artifact(database, key=key, directory=directory)
    row = f"example_labels: 1 row, such as dict_id {world.DICT}, layer 7, feature 0, label en"
    orphan, share = (line for line in check(database) if line.startswith(row))
    assert orphan == f"{row}; expected dict_id, layer, feature of a row of features"
    assert share == f"{row}, share 1.5; expected share from 0 to 1"

    monkeypatch.syspath_prepend(ROOT / "docs")
    import generate

    assert "share of the feature's firings that are on text of this label" in generate.tables().lower()
    assert "## `example_labels`" in generate.queries()
    sys.modules.pop("generate")


def test_what_is_wrong_with_a_migration_is_said(schema):
    schema("CREATE TABLE t (a INTEGER, artifact_key VARCHAR); COMMENT ON TABLE t IS 'One row per a. Key: b.'")
    with pytest.raises(AssertionError, match="t: its comment names {'b'}"):
        all_tables()
    for comment, said in {
        "One row per a.": "t: no Key",
        "One row per a. Key: a. Refer to: features (a).": "cannot read 'Refer to: features",
        "One row per a. Key: a. Refers to: nothing (a).": "refers to nothing, which is no table",
    }.items():
        schema(f"COMMENT ON TABLE t IS '{comment}'")
        with pytest.raises(AssertionError, match=said):
            all_tables()
    schema(
        "CREATE TABLE u (a INTEGER); COMMENT ON TABLE u IS 'Refers to: t (a).'; COMMENT ON TABLE t IS 'Key: a. Refers to: u (a).'"
    )
    with pytest.raises(AssertionError, match="t -> u -> t: references in a circle"):
        all_tables()


def test_comments_are_those_that_duckdb_keeps(monkeypatch):
    """They are read from the text of the migrations; where one has another form, all are from DuckDB."""
    text, views = tuple(store.migrations().values()), store.views()
    found, (_, comments) = tables._new_schema(text, views), tables._without_comments((*text, views))
    with monkeypatch.context() as patch:
        patch.setattr(tables, "_without_comments", lambda texts: (texts, {}))
        kept = tables._new_schema.__wrapped__(text, views)
    assert comments and found == kept and list(found.tables) == list(kept.tables)
    other = (*text, "CREATE TABLE t (a INTEGER); COMMENT ON TABLE t IS 'It''s. Key: a.'; COMMENT ON COLUMN \"t\".a IS 'A; b.'")
    assert tables._without_comments(other) == (other, {})
    same = other[-1].replace('"', "")
    assert tables._without_comments([same]) == (["CREATE TABLE t (a INTEGER);  "], {"t": "It's. Key: a.", "t.a": "A; b."})


def test_a_declared_primary_key_is_a_key(schema):
    schema("CREATE TABLE t (a INTEGER, b INTEGER, artifact_key VARCHAR, PRIMARY KEY (b, a)); COMMENT ON TABLE t IS 'Ts.'")
    assert (all_tables()["t"].key, all_tables()["t"].replaced_together) == (("b", "a"), ("b",))


def test_tables_are_loaded_after_those_they_refer_to(schema):
    schema(
        "CREATE TABLE s (a INTEGER, artifact_key VARCHAR); COMMENT ON TABLE s IS 'Key: a. Refers to: t (a = b).';"
        "CREATE TABLE t (b INTEGER, artifact_key VARCHAR); COMMENT ON TABLE t IS 'Key: b.'"
    )
    assert list(loaded_tables())[-2:] == ["t", "s"]
    assert loaded_tables()["s"].references == (Reference(("a",), "t", ("b",)),)


def test_a_tables_declaration_is_read_off_its_comment():
    edges = all_tables()["edges"]
    assert edges.about == "One row per edge of a graph." and edges.key == ("graph_id", "source_id", "target_id")
    assert Reference(("graph_id", "source_id"), "nodes", ("graph_id", "node_id")) in edges.references
    assert edges.replaced_together == edges.export_folders == ("graph_id",)
    assert [column.type for column in edges.columns[:4]] == ["VARCHAR", "INTEGER", "INTEGER", "DOUBLE"]
    scores = all_tables()["scores"]
    assert scores.replaced_together == scores.key[:-1] and scores.references[0].table == "explanations"
    assert set(all_tables()) - set(loaded_tables()) == {
        *tables.BOOKKEEPING,
        "experiments",
        "stage_runs",
        "contexts",
        "feature_cards",
        "named_edges",
        "window_counts",
        *tables.derived_tables(),
        "words",
        "word_pages",
        "word_forms",
        "word_statistics",
        "text_embeddings",
        "annotation_events",
        "annotations",
    }
    best = all_tables()["best_explanations"]
    assert best.derived_from == ("explanations", "scores") and best.replaced_together == ("dict_id", "layer")
    assert arrow_schema("edges").names == edges.column_names[:-1]


def test_schemas_of_arrow_are_those_of_the_tables(database):
    with store.connect(database) as connection:
        for name in loaded_tables():
            left_out = ", ".join(["artifact_key", *tables.MADE_COLUMNS.get(name, ())])
            rows = connection.sql(f"SELECT * EXCLUDE ({left_out}) FROM {name} LIMIT 0").to_arrow_table()
            assert arrow_schema(name).equals(rows.schema, check_metadata=True), name


def test_no_loaded_table_has_an_index(database):
    """Of 20 million contexts it would not fit in memory, and a referred row could not be replaced."""
    indexed = Database(database).sql("SELECT DISTINCT table_name FROM duckdb_constraints() WHERE constraint_type <> 'NOT NULL'")
    assert not set(indexed["table_name"]) & set(loaded_tables())


def test_a_column_that_came_later_to_a_key_may_be_missing_in_artifacts():
    later = {}
    for sql in store.migrations().values():
        for name, column in re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", sql):
            if name in loaded_tables() and column in loaded_tables()[name].key:
                later[name] = (*later.get(name, ()), column)
    assert later == tables.LATER_KEYS


def test_a_view_says_of_a_column_what_its_table_says():
    for view, table in (("feature_cards", "features"), ("named_edges", "edges")):
        same = {
            column for column in all_tables()[view].columns for other in all_tables()[table].columns if column.name == other.name
        }
        assert len(same) > 5 and same <= set(all_tables()[table].columns)


def test_wilsons_interval_in_sql_is_that_of_python(database, tmp_path):
    """In a database and in an exported folder; of no share and of none asked there is none, where DuckDB's `least` passes over NULL."""
    export(database, tmp_path / "out")
    asked = [(k, n) for n in (1, 2, 7, 100, 10**6) for k in sorted({0, 1, n // 3, n - 1, n})]
    sql = "SELECT unnest(wilson(k / n, n)) FROM (SELECT unnest($k) AS k, unnest($n) AS n)"
    for path in (database, tmp_path / "out"):
        db = Database(path)
        found = db.sql(sql, {"k": [k for k, _ in asked], "n": [n for _, n in asked]})
        assert found.columns == ["low", "high"]
        for (k, n), row in zip(asked, found.rows(), strict=True):
            low, high = wilson(k, n)
            assert row == pytest.approx((low, high), abs=1e-12) and 0 <= row[0] <= k / n <= row[1] <= 1
        [nothing] = db.sql("SELECT wilson(NULL, 5), wilson(0.5, NULL), wilson(0.5, 0), wilson(0 / 0, 0)").rows()
        assert nothing == (None,) * 4
        assert db.sql("SELECT wilson(0.5, 2.5) AS ends")["ends"][0] == pytest.approx({"low": 0.1108, "high": 0.8892}, abs=1e-4)


def test_students_factor_in_sql_is_that_of_scipy(database):
    from scipy.stats import t  # takes a second, and all processes read this file

    n = [*range(2, 30), 1000, 10**6]
    found = Database(database).sql("SELECT student(n) AS found FROM (SELECT unnest($n) AS n)", {"n": n})["found"]
    assert found.to_list() == pytest.approx(t.ppf(0.975, np.array(n) - 1), rel=1e-6)
    [nothing] = Database(database).sql("SELECT student(1), student(0), student(NULL)").rows()
    assert nothing == (None,) * 3


def test_stages_declare_the_tables_they_write(artifacts):
    declared = {stage.name: stage.tables for stage in STAGES.values()}
    assert undeclared(declared) == []
    wrong = {
        **declared,
        "train": ("dictionaries", "no_table", "annotations"),
        "evaluate": (),
        "harvest": ("features", "harvested_text"),
    }
    by_key = dict(artifacts)
    assert undeclared(wrong, [("train", by_key["train-key"]), ("harvest", by_key["harvest-key"])]) == [
        "train: declares no_table, which is no table that artifacts fill",
        "train: declares annotations, which is no table that artifacts fill",
        "metrics: no stage declares this table",
        "feature_edges: no stage declares this table",
        "windows: no stage declares this table",
        "feature_neighbours: no stage declares this table",
        "feature_labels: no stage declares this table",
        "input_edges: no stage declares this table",
        "pullback_overlaps: no stage declares this table",
        "isolation: no stage declares this table",
        f"train: does not declare metrics, which is in {by_key['train-key']}",
        f"harvest: does not declare windows, which is in {by_key['harvest-key']}",
    ]


def test_a_database_that_had_other_comments_ends_with_those_of_a_new_one(tmp_path):
    old, new = tmp_path / "old.duckdb", tmp_path / "new.duckdb"
    with store._open(old, write=True) as (connection, _):
        for name in list(store.migrations())[:5]:  # the released ones without comments of their own
            connection.execute(store.migrations()[name])
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?)", [name, store.now()])
        connection.execute("CREATE VIEW feature_cards AS SELECT dict_id, layer, feature, dead FROM features")
        connection.execute("COMMENT ON TABLE features IS 'As it was.'; COMMENT ON COLUMN features.dead IS 'As it was.'")
        connection.execute("COMMENT ON COLUMN feature_cards.dead IS 'As it was.'")
    for path in (old, new):
        with store.connect(path, write=True):
            pass
    assert Database(old).tables().equals(Database(new).tables())
