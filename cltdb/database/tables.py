"""What the schema says of every table and view: columns, comments, keys, references, which rows are replaced together.

Reads: the migrations and views in schema/, applied to a database in memory. A table is declared there and nowhere else: its
columns by CREATE TABLE, the rest by sentences at the end of its comment (schema/README.md has their form). The Parquet files
of artifacts hold the columns of their table except `artifact_key` and those of MADE_COLUMNS.
"""

import re
from collections import defaultdict
from contextlib import closing
from functools import cache
from typing import NamedTuple

from cltdb.database import store

ARTIFACT_KEY = "artifact_key"
BOOKKEEPING = ("schema_migrations", "loaded_artifacts", "loaded_parts", "stale_groups", "scattered_rows")
"""Tables in which a database notes its own history; not exported."""
EARLIER_NAMES = {"contexts": "windows"}
"""Tables that artifacts of an earlier cltdb know by another name, in another form (earlier.py)."""
LATER_KEYS = {"metrics": ("variant", "label"), "feature_edges": ("via",), "substitutions": ("draw",)}
"""{table: columns of its key that came later}: NULL in the rows of artifacts from before."""
MADE_COLUMNS = {
    "feature_edges": {"source_place": "source_layer::BIGINT * 4294967296 + source_feature"},
    "scores": {"judge": "TRY(detail->>'judge')"},
}
"""{table that artifacts fill: {column that no artifact holds, so that queries read less: what it is made from as rows are loaded}}."""

CLAUSE = re.compile(r"\b(Key|Replaced together|Refers to|Derived from|Export folders): ([^.:]*)\. ?")
COMMENT = re.compile(r"\bCOMMENT ON (?:TABLE|VIEW|COLUMN) ([\w.]+) IS '((?:[^']|'')*)'\s*(?:;|$)")
REFERENCE = re.compile(r"(\w+) \(([^()]*)\)(?:, |$)")
RANGE = re.compile(r"\((?:at least (?P<least>-?[\d.]+)|(?P<low>-?[\d.]+) to (?P<high>-?[\d.]+))\)|, 0 first\b")
CHOICE = re.compile(r"One of ([^.:;]*)[.:;]")


class Column(NamedTuple):
    """A column with its DuckDB type and its comment."""

    name: str
    type: str
    comment: str

    @property
    def bounds(self):
        """(lowest, highest) value that its comment allows, of lists that of their elements; None where it sets no bound."""
        if found := RANGE.search(self.comment):
            return float(found["least"] or found["low"] or 0), None if found["high"] is None else float(found["high"])
        return None

    @property
    def choices(self):
        """The values that its comment lists; empty where it lists none."""
        found = CHOICE.match(re.sub(r" \([^()]*\)", "", self.comment))
        return tuple(re.split(r", | or ", found[1])) if found else ()


class Reference(NamedTuple):
    """The values of `columns`, where none is NULL, are those of `other_columns` in a row of `table`."""

    columns: tuple[str, ...]
    table: str
    other_columns: tuple[str, ...]


class Table(NamedTuple):
    """A table or view as the schema declares it."""

    name: str
    comment: str
    about: str
    """Its comment without the sentences that the other fields hold."""
    columns: tuple[Column, ...]
    is_view: bool
    key: tuple[str, ...]
    """Columns that name a row."""
    replaced_together: tuple[str, ...]
    """Columns that name a group of rows. Where two artifacts have rows of one group, the artifact that was made last brings them all, so
    that a page never mixes two harvests and the order of loading does not matter."""
    references: tuple[Reference, ...]
    derived_from: tuple[str, ...]
    """Tables that its rows are made from, by schema/derived/<name>.sql; its groups are a dictionary and a layer."""
    export_folders: tuple[str, ...]
    """Columns of which `cltdb db export` makes folders."""

    @property
    def is_loaded(self):
        """True where its rows come from the Parquet files of artifacts."""
        return not self.is_view and self.name not in BOOKKEEPING and ARTIFACT_KEY in self.column_names

    @property
    def column_names(self):
        """Names of its columns, in order."""
        return [column.name for column in self.columns]

    @property
    def artifact_columns(self):
        """Those of its columns that artifacts hold."""
        made = (ARTIFACT_KEY, *MADE_COLUMNS.get(self.name, ()))
        return [column for column in self.columns if column.name not in made]


def all_tables():
    """{name: `Table`} of all tables, a table after those it refers to, then of all views."""
    return _schema().tables


def loaded_tables():
    """{name: `Table`} of the tables that are filled from artifacts, in the order of loading: a table after those it refers to."""
    return _schema().loaded


def derived_tables():
    """{name: `Table`} of the tables that are made from others."""
    return _schema().derived


def arrow_schema(name):
    """The columns of a loaded table as a `pyarrow.Schema`, as a Parquet file of its rows holds them."""
    return _arrow_schemas(tuple(store.migrations().values()))[name]


def undeclared(declared, artifacts=()):
    """What is wrong with the tables that stages say they write, one sentence each; empty where every table is declared by its stages.

    declared: {stage: names of tables}. artifacts: (stage, directory) pairs; tables that lie in them and are not declared are wrong.
    """
    loaded, found = loaded_tables(), []
    for stage, names in declared.items():
        found += [f"{stage}: declares {name}, which is no table that artifacts fill" for name in names if name not in loaded]
    said = {name for names in declared.values() for name in names}
    found += [f"{name}: no stage declares this table" for name in loaded if name not in said]
    for stage, directory in artifacts:
        written = sorted({EARLIER_NAMES.get(path.parent.name, path.parent.name) for path in directory.glob("tables/*/*.parquet")})
        found += [f"{stage}: does not declare {name}, which is in {directory}" for name in written if name not in declared[stage]]
    return found


def declared_shapes():
    """{(table, view or macro, column or None for itself): type of the column and whether it may be NULL, SQL of the view or macro, or `table` and its
    primary key} of a new database."""
    return _schema().shapes


def shapes(connection, database):
    """As `declared_shapes`, of a database that is attached under a name."""
    within = "WHERE database_name = $database AND schema_name = 'main' AND NOT internal"
    return {
        (name, column): shape
        for name, column, shape in connection.execute(
            f"SELECT table_name, column_name, data_type || if(is_nullable, '', ' NOT NULL') FROM duckdb_columns() {within}"
            f" UNION ALL SELECT table_name, NULL, concat('table', of_key.names) FROM duckdb_tables() LEFT JOIN ("
            " SELECT table_oid, ' by ' || array_to_string(constraint_column_names, ', ') AS names FROM duckdb_constraints()"
            f" WHERE database_name = $database AND constraint_type = 'PRIMARY KEY') AS of_key USING (table_oid) {within}"
            f" UNION ALL SELECT view_name, NULL, sql FROM duckdb_views() {within}"
            f" UNION ALL SELECT function_name, NULL, macro_definition FROM duckdb_functions() {within}",
            {"database": database},
        ).fetchall()
    }


# Reading the schema. Its text is the argument, so that another schema is read anew.


class _Schema(NamedTuple):
    """What `all_tables`, `loaded_tables`, `derived_tables` and `declared_shapes` give, of one new database."""

    tables: dict
    loaded: dict
    derived: dict
    shapes: dict


def _schema():
    return _new_schema(tuple(store.migrations().values()), store.views())


@cache
def _new_schema(migrations, views):
    texts, comments = _without_comments((*migrations, views))
    with closing(_new_database(*texts)) as connection:
        every = _tables(connection, comments)
        loaded = {name: table for name, table in every.items() if table.is_loaded}
        derived = {name: table for name, table in every.items() if table.derived_from}
        return _Schema(every, loaded, derived, shapes(connection, "memory"))


def _without_comments(texts):
    """(SQL texts without the comments of tables, views and columns, {name: comment}): to comment takes DuckDB 0.3 ms each time, two thirds of what
    a schema takes. All texts and no comments where one has another form."""
    rest = [COMMENT.sub("", text) for text in texts]
    if any(re.search(r"\bCOMMENT ON (?!MACRO)", text) for text in rest):
        return texts, {}
    return rest, {name: comment.replace("''", "'") for text in texts for name, comment in COMMENT.findall(text)}


def _tables(connection, comments):
    """comments: {name of a table, view or column: its comment}, of those of which the connection does not know it."""
    columns = defaultdict(list)
    for name, column, kind, comment in connection.execute(
        "SELECT table_name, column_name, data_type, coalesce(comment, '') FROM duckdb_columns() WHERE NOT internal"
        " ORDER BY table_name, column_index"
    ).fetchall():
        columns[name].append(Column(column, kind, comments.get(f"{name}.{column}", comment)))
    rows = connection.execute(
        "SELECT table_name, coalesce(comment, ''), false AS is_view, constraint_column_names FROM duckdb_tables() LEFT JOIN"
        " (FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY') USING (table_oid, table_name) WHERE NOT internal"
        " ORDER BY table_oid"
    ).fetchall()
    rows += connection.execute(
        "SELECT view_name, coalesce(comment, ''), true, NULL FROM duckdb_views() WHERE NOT internal ORDER BY view_oid"
    ).fetchall()
    return _referred_first(
        [_table(name, comments.get(name, comment), columns[name], is_view, key or ()) for name, comment, is_view, key in rows]
    )


@cache
def _arrow_schemas(migrations):
    import duckdb

    def empty(table):
        columns = [f'NULL::{column.type} AS "{column.name}"' for column in table.artifact_columns]
        return f"SELECT {', '.join(columns)} LIMIT 0"

    with closing(duckdb.connect()) as connection:
        return {name: connection.sql(empty(table)).to_arrow_table().schema for name, table in loaded_tables().items()}


def _new_database(*texts):
    """A connection to a database in memory, made by SQL `texts`."""
    import duckdb

    connection = duckdb.connect()
    for text in texts:
        connection.execute(text)
    return connection


def _table(name, comment, columns, is_view, primary_key):
    about, clauses = _clauses(name, comment)
    key = _names(clauses.get("Key", "")) or tuple(primary_key)
    table = Table(
        name,
        comment,
        about,
        tuple(columns),
        is_view,
        key=key,
        replaced_together=_names(clauses.get("Replaced together", "")) or key[:1],
        derived_from=_names(clauses.get("Derived from", "")),
        references=tuple(_reference(table, pairs) for table, pairs in REFERENCE.findall(clauses.get("Refers to", ""))),
        export_folders=_names(clauses.get("Export folders", "")),
    )
    named = {*table.key, *table.replaced_together, *table.export_folders, *(c for r in table.references for c in r.columns)}
    assert named <= set(table.column_names), f"{name}: its comment names {named - set(table.column_names)}, which are no columns"
    assert table.key or not table.is_loaded, f"{name}: no Key in its comment (schema/README.md)"
    return table


def _clauses(name, comment):
    """The comment of a table without its last sentences, and those as {opening words: what follows}."""
    first = CLAUSE.search(comment)
    if not first:
        return comment, {}
    tail = comment[first.start() :]
    assert not CLAUSE.sub("", tail), f"{name}: cannot read {CLAUSE.sub('', tail)!r} in its comment (schema/README.md)"
    return comment[: first.start()].rstrip(), dict(CLAUSE.findall(tail))


def _names(text):
    return tuple(text.split(", ")) if text else ()


def _reference(table, pairs):
    """`Reference` from "graph_id, source_id = node_id": a column, and the other table's where it has another name."""
    columns, other = zip(*((pair.split(" = ") * 2)[:2] for pair in pairs.split(", ")), strict=True)
    return Reference(columns, table, other)


def _referred_first(tables):
    """{name: table}, tables that others refer to before those, otherwise in the order in which they were made; views last."""
    by_name, ordered = {table.name: table for table in tables}, {}

    def add(table, above=()):
        assert table.name not in above, f"{' -> '.join((*above, table.name))}: references in a circle"
        for reference in (one for one in table.references if one.table != table.name):
            assert reference.table in by_name, f"{table.name} refers to {reference.table}, which is no table"
            add(by_name[reference.table], (*above, table.name))
        ordered.setdefault(table.name, table)

    for table in tables:
        add(table)
    return ordered
