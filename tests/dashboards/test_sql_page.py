"""The SQL page: what may be asked, what ends a question, the form, the table, the figure, the files."""

import json
import re
import shutil
import threading
import time

import dash_ag_grid
import polars as pl
import pytest
from command_line import PATIENCE_S
from visit import by_id, client_of, elements, page_text, show, texts
from worlds import capitals_experiment as world

from cltdb.database import named_queries
from cltdb.database.export import export
from cltdb.database.folder import reading
from cltdb.database.store import connect
from cltdb.errors import CltdbError
from dashboards import answer, questions, sql_parts, urls
from dashboards.pages import sql as page

pytestmark = pytest.mark.usefixtures("within_app")
ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"
DEAF = "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))"  # DuckDB does not look for an interrupt in there


def asked(database, sql, params=None, timeout_s=PATIENCE_S):
    """What a process answers, without the process and its limits."""
    with reading(database) as connection:
        return answer.answered(connection, database=database, sql=sql, params=params or {}, timeout_s=timeout_s)


@pytest.fixture(scope="module")
def ask(database):
    """Asks in processes."""
    made = questions.Questions(database)
    yield made
    made.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x (a INT)", "CREATE TEMP TABLE x AS SELECT 1", "CREATE VIEW v AS SELECT 1", "CREATE MACRO f() AS 1",
        "CREATE SECRET s (TYPE S3)", "INSERT INTO features DEFAULT VALUES", "UPDATE features SET dead = true", "DELETE FROM features",
        "TRUNCATE features", "DROP TABLE features", "ALTER TABLE features ADD COLUMN x INT", "COMMENT ON TABLE features IS 'x'",
        "MERGE INTO features USING features AS s ON true WHEN MATCHED THEN DELETE", "ATTACH '/tmp/x.duckdb'", "ATTACH ':memory:' AS m",
        "DETACH cltdb", "USE memory", "COPY features TO '/tmp/x.csv'", "COPY features FROM '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.parquet'", "EXPORT DATABASE '/tmp/x'", "IMPORT DATABASE '/tmp/x'", "INSTALL httpfs", "LOAD httpfs",
        "SET memory_limit = '100GB'", "RESET memory_limit", "PRAGMA memory_limit = '100GB'", "PRAGMA database_list",
        "PRAGMA enable_profiling", "CALL enable_logging()", "CHECKPOINT", "FORCE CHECKPOINT", "VACUUM", "BEGIN", "PREPARE p AS SELECT 1",
        "EXECUTE p", "SET VARIABLE x = 1", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE features", "EXPLAIN ANALYZE CREATE TABLE x (a INT)",
        "EXPLAIN COPY (SELECT 1) TO '/tmp/x'", "WITH x AS (INSERT INTO features DEFAULT VALUES RETURNING *) FROM x",
        "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM read_json('/etc/passwd')", "SELECT * FROM read_parquet('/tmp/x.parquet')", "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM parquet_metadata('/tmp/x.parquet')", "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'x.csv'", "SELECT * FROM 'https://example.com/x.csv'", "SELECT * FROM read_duckdb('/tmp/x.duckdb')",
        "SELECT * FROM query('DROP TABLE features')", "SELECT * FROM query('FROM read_csv(''/etc/passwd'')')", "SELECT getenv('HOME')",
        "SELECT * FROM duckdb_extensions()", "SELECT set_config('threads', '99', false)", "SELECT * FROM which_secret('s3://x', 's3')",
        "", "-- nothing", "nonsense", "SELECT error('<img src=x onerror=alert(1)>')",
    ],
)  # fmt: skip
def test_what_does_more_than_ask_is_refused_in_one_line(database, statement):
    with pytest.raises(CltdbError) as caught:
        asked(database, statement)
    assert str(caught.value).startswith("sql: found ") and "\n" not in str(caught.value)


def test_a_question_ends_at_its_time_also_where_duckdb_does_not_hear_of_it(database):
    for statement in (ENDLESS, DEAF):
        ask = questions.Questions(database, timeout_s=0.3)
        with pytest.raises(CltdbError, match="longer than 0.3 s"):
            ask.ask(questions.Question(statement, {}))  # which would never end
        with connect(database, write=True, timeout_s=PATIENCE_S):  # nobody holds the database
            pass
        ask.close()


def test_a_question_takes_no_more_memory_than_it_may(database, tmp_path, monkeypatch):
    (tmp_path / "cltdb.yaml").write_text("database: {path: small.duckdb, memory_limit: 64MB}")
    small = shutil.copy(database, tmp_path / "small.duckdb")
    with pytest.raises(CltdbError, match="more memory than its 64MB"):
        asked(small, "SELECT list(i) FROM range(10_000_000_000) AS r(i)")
    limits = {}
    monkeypatch.setattr(answer.resource, "setrlimit", lambda what, value: limits.update({what: value[0]}))
    monkeypatch.setattr(answer.signal, "setitimer", lambda which, seconds: limits.update(seconds=seconds))
    answer._limit(database=small, timeout_s=3, format="csv", sql="", params={}, output="")
    assert limits == {
        answer.resource.RLIMIT_DATA: 64_000_000 + answer.SPARE_BYTES,
        answer.resource.RLIMIT_FSIZE: answer.MAX_FILE_BYTES,
        "seconds": 3 + answer.GRACE_S,
    }


def test_a_page_has_one_question_and_all_have_two(database, ask):
    """Other pages go on meanwhile; a page that is left ends its question."""
    said = []

    def wait(who):
        try:
            ask.ask(questions.Question(ENDLESS, {}), page=who)
        except CltdbError as error:
            said.append((who, error.found))

    def running():
        deadline = time.monotonic() + PATIENCE_S
        while len(ask._running) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return set(ask._running)

    threads = [threading.Thread(target=wait, args=(who,)) for who in ("one", "two")]
    for thread in threads:
        thread.start()
    assert running() == {"one", "two"} and world.DICT in page_text(database, "/")
    with pytest.raises(CltdbError, match="at most 2 at once"):
        ask.ask(questions.Question("SELECT 1", {}), page="three")
    assert ask.ask(questions.Question("SELECT 1", {}), page="two")["rows"] == [[1]]
    ask.stop("one")
    for thread in threads:
        thread.join(PATIENCE_S)
    assert said == [("two", "a question that was stopped"), ("one", "a question that was stopped")] and not ask._running


def test_cells_are_what_was_found(database):
    found = asked(
        database,
        "SELECT 9007199254740993 AS a, -3 AS a, 1.5::DECIMAL(10, 2), 'NaN'::FLOAT, NULL, [1, 2], {'k': 1}, true, 'a\u202eb',"
        " repeat('x', 5000), '-inf'::DOUBLE, '2020-01-02'::DATE",
    )
    [cells] = found["rows"]
    assert cells[:9] == ["9007199254740993", -3, "1.5", "NaN", None, "[1, 2]", '{"k": 1}', "true", r"a\u202eb"]
    assert len(cells[9]) == answer.MAX_CELL_CHARS and cells[10:] == ["-Infinity", "2020-01-02"]
    assert [column["name"] for column in found["columns"]][:2] == ["a", "a_1"] and found["columns"][0]["number"]
    many = asked(database, "FROM range(2001)")
    assert (
        many["more"]
        and len(many["rows"]) == answer.MAX_ROWS
        and "the first 2,000 rows; there are more" in sql_parts.counted(many, 1)
    )
    wide = asked(database, "SELECT a, a AS b, a AS c, a AS d, a AS e FROM (SELECT repeat('x', 2000) AS a FROM range(1500))")
    assert wide["more"] and len(wide["rows"]) == answer.MAX_CHARS // 10_000
    exactly = asked(database, "FROM range(2000)")
    assert not exactly["more"] and sql_parts.counted(exactly, 1).startswith("2,000 rows")
    assert asked(database, "FROM range(0)")["rows"] == []


def test_names_and_cells_of_a_result_are_text(database):
    name = 'a.b"<img src=x onerror=alert(1)>'
    found = asked(
        database, f"SELECT 1 AS \"{name.replace(chr(34), chr(34) * 2)}\", '{world.HOSTILE.replace(chr(39), chr(39) * 2)}' AS t"
    )
    [first, second] = sql_parts.columns(found)
    assert (first["field"], first["headerName"]) == ("c0", name) and sql_parts.rows(found) == [{"c0": 1, "c1": world.HOSTILE}]
    assert "cellRenderer" not in first | second and "d3" not in second["valueFormatter"]["function"]
    names = {"c0": name, "c1": world.HOSTILE}
    drawn = sql_parts.plot(sql_parts.rows(found), names, x="c1", y="c0", colour="c1", kind="bars")
    assert "<img" not in json.dumps(drawn.to_plotly_json(), default=str)
    json.dumps(dash_ag_grid.AgGrid(columnDefs=[first, second]).to_plotly_json())


def test_a_figure_of_what_was_found():
    table = [{"c0": i, "c1": i * i, "c2": "even" if i % 2 == 0 else None, "c3": f"v{i}"} for i in range(30)]
    names = {"c0": "i", "c1": "square", "c2": "parity", "c3": "own"}
    drawn = sql_parts.plot(table, names, x="c0", y="c1", colour="c2", kind="points")
    assert [trace.name for trace in drawn.data] == ["NULL", "even"] and list(drawn.data[1].y) == [i * i for i in range(0, 30, 2)]
    many = sql_parts.plot(table, names, x="c0", y="c1", colour="c3", kind="lines").data
    assert (
        len(many) == sql_parts.MAX_COLOURS + 1 and many[-1].name == sql_parts.OTHERS and sum(len(trace.x) for trace in many) == 30
    )
    assert list(sql_parts.plot(table, names, x="c1", y=None, colour=None, kind="histogram").data[0].x) == [
        i * i for i in range(30)
    ]
    assert "choose" in sql_parts.plot(table, names, x="c0", y=None, colour=None, kind="points").layout.annotations[0].text

    def first(*kinds):
        return sql_parts.first_choices({"columns": [{"name": "n", "number": kind == "n"} for kind in kinds]})

    assert first("t", "n", "n") == ("c1", "c2", "points") and first("n", "t") == ("c1", "c0", "bars")
    assert first("n") == ("c0", None, "histogram") and first("t")[0] is None


def test_what_an_address_asks():
    def question(fields):
        return questions.question(fields, "cltdb.duckdb")

    assert question({"q": "SELECT 1"}) == ("SELECT 1", {})
    named = question({"query": "top_neighbours", "p.dict_id": "d", "p.layer": "1", "p.feature": "2", "utm": "x"})
    assert named.params["layer"] == 1 and named.params["measure"] == "twera" and "$layer" in named.sql
    for fields, words in (
        ({"q": "x" * 10_001}, "10,001 characters"),
        ({"q": "SELECT '\0'"}, "NUL"),
        ({"query": "nope"}, "no query"),
        ({"query": "top_neighbours"}, "no value for dict_id"),
        ({"query": "top_neighbours", "p.layer": "one"}, "no value"),
        ({"query": "graph_list", "p.x": "1"}, "unknown parameter"),
    ):
        with pytest.raises(CltdbError, match=re.escape(words)):
            question(fields)
    places = [{"type": sql_parts.FIELD, "name": name} for name in ("dict_id", "layer", "limit")]
    fields = page.asked_fields("SELECT 2", "top_neighbours", ["d", 0, None], places)
    assert fields == {"query": "top_neighbours", "p.dict_id": "d", "p.layer": "0"}
    assert page.asked_fields("SELECT 2", sql_parts.NONE, [], []) == {"q": "SELECT 2"}


def test_a_search_takes_the_glossary_of_the_project(database, tmp_path, monkeypatch):
    (tmp_path / "cltdb.yaml").write_text("database: {search: {glossary: kinds.txt}}\n")
    (tmp_path / "kinds.txt").write_text("seats: capital\n")
    found = []

    def ask(_, asked, *, output, **how):
        found.append(asked.params["glossary"])
        open(output, "w").close()

    monkeypatch.setattr(questions.Questions, "ask", ask)
    client_of(shutil.copy(database, tmp_path / "cltdb.duckdb")).get("/sql/rows.csv?query=feature_search&p.text=seats")
    [glossary] = found
    assert glossary[0] == "seats capital"  # its translations come after it


def test_every_named_query_has_fields_and_its_example_fills_them_in(database):
    for query in named_queries.list_queries():
        made = sql_parts.fields(query, {})
        assert [label.children[1].id["name"] for label in made] == list(query.parameters)
        assert query.title in texts(sql_parts.about(query)) and query.grain in texts(sql_parts.about(query))
        if query.example:
            _, _, search = sql_parts.example_url(query).partition("?")
            with client_of(database).application.test_request_context(f"/?{search}") as context:
                assert questions.question(context.request.args.to_dict(), database).sql == query.sql
    measure = sql_parts.fields(named_queries.named_query("top_neighbours"), {"measure": "era", "layer": "3"})
    assert {type(field.children[1]).__name__ for field in measure} == {"Dropdown", "Input"}
    assert [field.children[1].value for field in measure][1:4:2] == ["3", "era"]


def test_the_page_comes_from_the_address(database):
    found = by_id(show(database, urls.SQL, "?q=SELECT+42"))
    assert found[page.EDITOR]["value"] == "SELECT 42" and found[page.RUN]["n_clicks"] == 0
    assert by_id(show(database, urls.SQL))[page.RUN]["n_clicks"] is None, "nothing is asked by itself"
    named = show(database, urls.SQL, "?query=top_neighbours&p.layer=2")
    [written] = [part for part in elements(named) if part.get("id") == page.WRITTEN]
    assert written["hidden"] and "twera" in json.dumps(named)
    assert "There is no named query <b>" in page_text(database, urls.SQL, "?query=%3Cb%3E")
    text = page_text(database, urls.SQL)
    for expected in ("feature_cards", "view", "max_activation", "Dictionary of the feature"):
        assert expected in text
    assert page.choose("top_neighbours")[2] and page.choose(sql_parts.NONE) == page.choose(None) == ([], [], False)


def test_whole_results_come_as_files(database):
    client = client_of(database)
    sql = "SELECT i, '=1+1' AS t, [i] AS l FROM range(3000) AS r(i)"
    written = client.get("/sql/rows.csv", query_string={"q": sql})
    assert written.headers["Content-Disposition"] == 'attachment; filename="rows.csv"'
    lines = written.text.splitlines()
    assert lines[:2] == ["i,t,l", "0,=1+1,[0]"] and len(lines) == 3001
    parquet = client.get("/sql/rows.parquet", query_string={"query": "evaluation", "p.dict_id": world.DICT})
    assert 'filename="evaluation.parquet"' in parquet.headers["Content-Disposition"]
    assert set(pl.read_parquet(parquet.data)["dict_id"]) == {world.DICT}
    refused = client.get("/sql/rows.csv", query_string={"q": "DROP TABLE features"})
    assert refused.status_code == 400 and refused.mimetype == "text/plain" and refused.text.startswith("sql: found a statement")
    assert client.get("/sql/rows.csv?q=SELECT+1", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/sql/rows.exe?q=SELECT+1").status_code == 404
    assert client.post("/sql/stop", data="nobody").status_code == 204


def test_an_exported_folder_is_asked_as_well(database, tmp_path):
    export(database, tmp_path / "exported")
    sql = "SELECT layer, count(*) AS n FROM features GROUP BY layer ORDER BY layer"
    assert asked(tmp_path / "exported", sql) == asked(database, sql)
    with pytest.raises(CltdbError, match="which reads files"):
        asked(tmp_path / "exported", "FROM read_csv('/etc/passwd')")
    with pytest.raises(CltdbError, match="in place of a table"):
        asked(tmp_path / "exported", "FROM '/etc/passwd.csv'")
