"""What `cltdb db export` writes is asked as the database is."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from command_line import ROOT, no_larger_files
from damage import rot
from polars.testing import assert_frame_equal
from test_database_queries import BY_WORLD, OF_RANDOM, PARAMETERS
from worlds import tiny_experiment as world
from worlds.random_experiment import DICT, OLD

from cltdb.__main__ import main
from cltdb.database.api import Database
from cltdb.database.export import export
from cltdb.database.folder import READ_ONCE
from cltdb.database.merge import merge
from cltdb.database.named_queries import named_query
from cltdb.database.store import connect
from cltdb.engine.workspace import read_json, write_json
from cltdb.errors import CltdbError


def exported(database, root):
    folder = root / "with [brackets] and 'quotes'"
    export(database.path, folder)
    return database, Database(folder)


@pytest.fixture(scope="module")
def both(tiny, tmp_path_factory):
    """(the tiny experiment's database, the folder that it was exported to)."""
    return exported(Database(tiny[1]), tmp_path_factory.mktemp("tiny-export"))


@pytest.fixture(scope="module")
def both_random(random_world, tmp_path_factory):
    return exported(random_world[0], tmp_path_factory.mktemp("random-export"))


@pytest.mark.parametrize("query", BY_WORLD, ids=lambda query: query.name)
def test_every_query_finds_the_same_rows_in_an_exported_folder(both, both_random, query):
    given = OF_RANDOM.get(query.name, PARAMETERS.get(query.name, {}))
    database, folder = (db.query(query.name, **given) for db in (both_random if query.name in OF_RANDOM else both))
    assert database.height
    assert_frame_equal(folder, database, rel_tol=1e-12)  # sums of floats are added up in another order


@pytest.mark.parametrize("dict_id", [DICT, OLD])
@pytest.mark.parametrize(
    "sql",
    [
        named_query("graph_list").sql,
        "SELECT n.* FROM graphs JOIN (FROM nodes ORDER BY influence DESC LIMIT 20) AS n USING (graph_id) WHERE dict_id = $dict_id",
        """FROM nodes WHERE graph_id IN (SELECT graph_id FROM graphs WHERE dict_id = $dict_id)
        QUALIFY row_number() OVER (PARTITION BY graph_id ORDER BY influence DESC) = 1""",
        "SELECT layer, feature, count(*) OVER (PARTITION BY layer, feature) AS n FROM windows WHERE dict_id = $dict_id",
    ],
)
def test_rows_that_lie_in_some_of_the_files_are_found_there(both_random, sql, dict_id):
    """The first ones of a table, of which a join then needs some: DuckDB numbers the files that it reads. Aggregates over windows."""
    database, folder = (db.sql(f"FROM ({sql}) ORDER BY ALL", {"dict_id": dict_id}) for db in both_random)
    assert database.height and folder.equals(database)


def test_an_export_of_before_is_asked_for_texts_too(both, tmp_path):
    """Without the columns by which queries find edges and the texts of neighbours."""
    database, folder = both
    before = Path(shutil.copytree(folder.path, tmp_path / "before"))
    description = before / "export.json"
    columns = read_json(description)
    lacking = {"best_explanations": "place", "feature_edges": "source_place", "edges_into": "target_place"}
    for table, column in lacking.items():
        for file in (before / table).glob("**/*.parquet"):
            pl.read_parquet(file, hive_partitioning=False).drop(column).write_parquet(file)
        columns["tables"][table]["columns"].remove(column)
    for facts in columns["tables"].values():
        del facts["files"], facts["bytes"]
    write_json(description, columns)
    for name in ("top_neighbours", "feature_circuit"):
        rows = [db.query(name, **PARAMETERS[name]) for db in (database, Database(before))]
        assert rows[1].equals(rows[0]) and rows[0]["text" if name == "top_neighbours" else "source_text"].count()


def test_an_export_of_before_has_edges_through_heads_by_target(both_random, tmp_path):
    """Without the table that is made from feature_edges."""
    database, folder = both_random
    before = Path(shutil.copytree(folder.path, tmp_path / "before"))
    shutil.rmtree(before / "head_edges_into")
    written = read_json(before / "export.json")
    del written["tables"]["head_edges_into"]
    write_json(before / "export.json", written)
    rows = [db.query("head_edges", dict_id=DICT, layer=2, feature=3) for db in (database, Database(before))]
    assert rows[1].equals(rows[0]) and "from" in rows[0]["direction"]


def test_views_and_tables_are_the_same_rows(both):
    database, folder = both
    for table in database.tables()["table"].unique():
        if table not in ("schema_migrations", "stale_groups", "scattered_rows"):
            rows = [db.sql(f"SELECT * FROM {table} ORDER BY ALL") for db in both]
            assert rows[1].equals(rows[0]) and rows[1].schema == rows[0].schema


def test_files_are_read_by_others(both):
    """By Polars; by DuckDB as the page says, which is as cltdb reads them."""
    database, folder = both
    assert f"`{READ_ONCE}`" in (ROOT / "docs/database.md").read_text()
    files = sorted((folder.path / "features").glob("**/*.parquet"))
    back = pl.read_parquet(files, glob=False, hive_partitioning=True)
    assert back.height == database.features(world.DICT).height and set(back["layer"]) == {0, 1}
    assert {path.parent.name for path in files} == {"layer=0", "layer=1"}


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (
            "nodes/*/*.parquet",
            Path.unlink,
            r"found table nodes with 0 bytes \(files: 0\); expected the [\d,]+ bytes .*\(files: 1\).*copy",
        ),
        ("features/*/layer=1/*.parquet", Path.unlink, r"found table features with .*\(files: 1\); .*\(files: 2\)"),
        ("features/*/layer=1/*.parquet", _cut, r"found table features with .*\(files: 2\); .*\(files: 2\)"),
        ("export.json", _cut, r"export.json: found a file that cannot be read; .*do this: export again"),
        ("export.json", lambda path: path.write_text("[1]"), r"export.json: found a file that cannot be read"),
    ],
)
def test_a_folder_that_lacks_something_is_not_asked(both, tmp_path, name, damage, said):
    """It would answer with fewer rows."""
    folder = Path(shutil.copytree(both[1].path, tmp_path / "copy"))
    damage(next(folder.glob(name)))
    with pytest.raises(CltdbError, match=said):
        Database(folder).query("graph_list")


def test_a_check_of_a_folder_finds_files_that_were_changed(both, tmp_path, capsys):
    folder = Path(shutil.copytree(both[1].path, tmp_path / "copy"))
    check = ["db", "check", "--from", str(folder)]
    assert main(check) == 0 and capsys.readouterr().out == "no problems\n"
    changed = sorted(folder.glob("features/*/*/*.parquet"))[1], folder / "experiments" / "rows.parquet"
    for path in changed:
        rot(path)
    assert main([*check, "--full"]) == 1
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in said.out.splitlines()] == sorted(map(str, changed))
    assert "found another content than was written" in said.out and "found 2 damaged files" in said.err
    write_json(folder / "export.json", read_json(folder / "export.json") | {"files": {}})
    assert main(check) == 1 and capsys.readouterr().out.startswith(f"{folder / 'export.json'}: found another content")


def test_a_check_of_a_folder_finds_what_was_wrong_when_it_was_written(both, tmp_path, capsys):
    """Also where an earlier cltdb wrote it, without hashes; but not where it lacks columns."""
    path, folder = shutil.copy(both[0].path, tmp_path / "wrong.duckdb"), tmp_path / "wrong"
    with connect(path, write=True) as connection:
        connection.execute(
            "UPDATE features SET density = 3 WHERE feature = 1; UPDATE best_explanations SET text = 'other' WHERE feature = 0"
        )
    export(path, folder)
    description = read_json(folder / "export.json")
    del description["files"]
    write_json(folder / "export.json", description)
    assert main(["db", "check", "--from", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "features: 2 rows" in said and "expected rows as best_explanations.sql makes them" in said and "not checked: " in said
    description["tables"]["edges_into"]["columns"].remove("target_place")
    write_json(folder / "export.json", description)
    assert main(["db", "check", "--from", str(folder)]) == 1
    assert "found an export of an earlier cltdb" in capsys.readouterr().err


def test_an_export_is_never_written_over_and_names_itself(both, tmp_path):
    with pytest.raises(CltdbError, match="exists"):
        export(both[0].path, both[1].path)
    with pytest.raises(CltdbError, match="a folder without export.json"):
        Database(tmp_path).query("graph_list")


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('{file}')", "FROM read_parquet('{file}')", "COPY (SELECT 1) TO '{folder}/x'", "SET threads = 1",
        "FROM glob('{folder}/*')", "FROM read_text('{folder}/export.json')", "FROM read_parquet('{folder}/features/*/*.parquet')",
    ],
)  # fmt: skip
def test_an_exported_folder_gives_access_to_nothing_else(both, sql):
    folder = both[1].path
    with pytest.raises(CltdbError):
        both[1].sql(sql.format(file=__file__, folder=folder))
    assert not (folder / "x").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "FROM '{part}'", 'SELECT * FROM "{part}"', "FROM graphs, '{part}' AS p", "WITH w AS (FROM '{part}') FROM w", "SUMMARIZE '{part}'",
        "DESCRIBE '{part}'", "EXPLAIN ANALYZE FROM '{part}'", "PIVOT '{part}' ON graph_id USING count(*)", "UNPIVOT '{part}' ON *",
        "FROM graphs WHERE graph_id IN (FROM '{part}' SELECT graph_id)", "FROM /* x */ '{part}' WHERE graph_id = $graph_id", "FROM graphs.parquet",
    ],
)  # fmt: skip
def test_a_file_of_the_folder_is_no_table(both, sql):
    """Read as what it is: in a view its columns have their types, and those that the file lacks are there."""
    part = next((both[1].path / "graphs").rglob("*.parquet"))
    with pytest.raises(CltdbError, match="the file .*parquet.* in place of a table"):
        both[1].sql(
            sql.format(part=str(part).replace("'", "" if '"' in sql else "''")), {"graph_id": "x"} if "$" in sql else None
        )


@pytest.mark.parametrize(
    ("sql", "params", "n"),
    [
        ("SELECT 'x.parquet' AS s, 'y.csv' AS t FROM graphs LIMIT 1", None, 1),
        ("FROM graphs WHERE graph_id = 'FROM x.parquet'", None, 0),
        ("FROM graphs WHERE graph_id = $graph_id OR graph_id LIKE '%.parquet'", {"graph_id": "x"}, 0),
    ],
)
def test_a_text_that_is_like_the_name_of_a_file_is_a_text(both, sql, params, n):
    for source in both:
        assert source.sql(sql, params).height == n


def test_the_command_asks_a_folder_or_a_file_and_writes_into_neither(both, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (["sql", "--query", "graph_list"], ["search", "France"]):
        answers = []
        for source in both:
            assert main([*command, "--from", str(source.path)]) == 0
            answers.append(capsys.readouterr().out)
        assert answers[0] == answers[1] and answers[0].count("\n") > 1
    for source, target, said in (
        (tmp_path / "nothing", "rows.csv", "nothing there"),
        (both[1].path, both[1].path / "rows.csv", "which is asked"),
        (both[0].path, both[0].path, "which is asked"),
    ):
        assert main(["sql", "SELECT 1", "--from", str(source), "-o", str(target), "--overwrite"]) == 1
        assert said in capsys.readouterr().err
    for command in (["search", "France"], ["dash"]):
        assert main([*command, "--from", "nothing"]) == main([*command, "--from", str(tmp_path)]) == 1
        errors = capsys.readouterr().err
        assert "error: nothing: found nothing there" in errors and "a folder without export.json" in errors


@pytest.mark.parametrize("size", [3000, 10_000])
def test_where_there_is_no_room_the_folder_is_named_and_nothing_is_left(database, tmp_path, size):
    """Not the database, which is on another disk, nor its setting."""
    (tmp_path / "to").mkdir()
    for write, name in (
        (lambda: export(database, tmp_path / "to/exported"), r"/to/exported(.partial/export.json)?"),
        (lambda: merge([database], tmp_path / "to/all.duckdb"), r"/to/\.?all\.duckdb[.\w]*"),
    ):
        with no_larger_files(size), pytest.raises(CltdbError, match=f"{name}: found no room to write") as caught:
            write()
        left = {entry.name for entry in (tmp_path / "to").iterdir()}
        assert left <= {"..all.duckdb.merging.new"}, "where the tests' conftest.py makes a new database"
        assert caught.value.do.startswith("free space, or ") and " -o" in caught.value.do
