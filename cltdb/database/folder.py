"""A folder of Parquet files that `cltdb db export` wrote, asked like a database: its tables are views over the files.

`export.json` in it says of each table how many rows, files and bytes and which columns it has, and which of these are folders, and has the hash of
each file. Connections may read files of the folder and nothing else.
"""

import os
import tempfile
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from cltdb.database import instances, native, store
from cltdb.database.interrupts import interrupts_raised
from cltdb.database.literals import path_literal, quoted
from cltdb.database.outdated import connect_to_ask
from cltdb.database.tables import MADE_COLUMNS, all_tables
from cltdb.database.word_pages import PAGES
from cltdb.engine import integrity
from cltdb.engine.workspace import read_json
from cltdb.errors import CltdbError

DESCRIPTION = "export.json"
MADE = {
    ("best_explanations", "place"): "feature::BIGINT * 65536 + layer",
    ("best_explanations", "text_md5"): "md5(text)",
    ("edges_into", "target_place"): "target_layer::BIGINT * 4294967296 + target_feature",
    ("explanation_words", "place"): "md5_number_lower(dict_id || ' ' || word)",
    (
        "token_features",
        "place",
    ): "md5_number_lower(dict_id) // 268435456 * 268435456"
    " + CASE role WHEN 'follows' THEN 67108864 WHEN 'promotes' THEN 134217728 WHEN 'right_after' THEN 201326592"
    " WHEN 'right_before' THEN 234881024 ELSE 0 END::UBIGINT + (token & 67108863)::UBIGINT",
    **{(table, name): sql for table, made in MADE_COLUMNS.items() for name, sql in made.items()},
    ("words", "word_hash"): "md5_number_lower(word)",
    ("words", "place"): "md5_number_lower(dict_id || ' ' || word)",
}
"""Columns by which queries find rows and which exports of an earlier cltdb lack: what they are made from. Others are NULL there."""
MADE_TABLES = {
    "head_edges_into": lambda schema: (
        "SELECT dict_id, target_layer, target_feature, source_layer, source_feature, via, virtual_weight"
        f" FROM {schema}.feature_edges WHERE via IS NOT NULL"
    ),
    "score_costs": lambda schema: _of_all_groups("score_costs").replace("FROM scores", f"FROM {schema}.scores"),
    "word_pages": lambda schema: PAGES.format(words=f"{schema}.words"),
    "word_forms": lambda schema: f"SELECT word, any_value(stem) AS stem, word_hash FROM {schema}.words GROUP BY word, word_hash",
}
"""Tables that they lack: the SELECT that makes them of others of a schema."""

READ_ONCE = "SET disabled_optimizers = 'late_materialization,top_n_window_elimination,window_self_join'"
"""SQL for connections that read files. Where the first rows of several files are asked for, DuckDB 2.0 finds them by the number of their file, then
reads these files again for the other columns, and numbers them anew where a join needs only some: the rows came from other files, or none. An
aggregate over a window is read a second time, from all files also where only some are asked for: counts of two dictionaries were added up."""


@contextmanager
def reading(path, *, timeout_s=None, threads=None):
    """A connection for questions to a database or to an exported folder; `timeout_s` as in `store.connect`."""
    path = Path(path)
    if not path.is_dir():
        with connect_to_ask(path, timeout_s=timeout_s, threads=threads) as connection:
            yield connection
    else:
        described = path / DESCRIPTION
        made = described.stat().st_mtime_ns if described.is_file() else None
        with interrupts_raised(), closing(_instance(path.resolve(), made).cursor()) as connection:
            yield connection


def described(folder):
    """What an exported folder says of its tables: {table: {"rows": number, "columns": names, "folders": names}}."""
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise CltdbError(
            str(folder), found=f"a folder without {DESCRIPTION}", expected="one that `cltdb db export` wrote", do="export again"
        )
    try:
        content = read_json(path)
        migrations, tables = content["migrations"], content["tables"]
    except (CltdbError, KeyError, TypeError) as error:
        raise CltdbError(
            str(path), found="a file that cannot be read", expected="what `cltdb db export` wrote", do="export again"
        ) from error
    if newer := sorted(set(migrations) - set(store.migrations())):
        raise CltdbError(
            str(folder),
            found=f"an export of a newer cltdb ({newer[0]})",
            expected=f"migrations up to {max(store.migrations())}",
            do="upgrade cltdb",
        )
    for name, written in tables.items():
        there = measured(Path(folder) / name)
        if any(written.get(what, n) != n for what, n in there.items()):
            raise CltdbError(
                str(folder),
                found=f"table {name} with {there['bytes']:,} bytes (files: {there['files']:,})",
                expected=f"the {written['bytes']:,} bytes that were written (files: {written['files']:,})",
                do="copy the whole folder again, or export again",
            )
    return tables


def measured(folder):
    """How many files a table in a folder has and how large they are together; exports of an earlier cltdb do not know it."""
    sizes = [path.stat().st_size for path in Path(folder).rglob("*.parquet")]
    return {"files": len(sizes), "bytes": sum(sizes)}


def changed_files(folder):
    """A sentence on each file of an exported folder that is not as it was written; None where an earlier cltdb wrote it, without hashes."""
    folder = Path(folder)
    described(folder)
    written, there = read_json(folder / DESCRIPTION), integrity.describe(folder)
    if "files" not in written:
        return None
    changed = [name for name, facts in written["files"].items() if there.get(name) != facts]
    changed += [] if integrity.is_sealed(written) else [DESCRIPTION]
    return [f"{folder / name}: found another content than was written; expected what was exported" for name in changed]


def is_current(folder):
    """Whether an exported folder has all tables and columns of this cltdb."""
    written = described(folder)
    return all(set(table.column_names) <= set(written.get(table.name, {"columns": ()})["columns"]) for table in exported_tables())


def exported_tables():
    """The `Table`s that an export has."""
    return [table for table in _tables() if table.name not in ("schema_migrations", "stale_groups", "scattered_rows")]


def views(folder, schema):
    """SQL that makes, in a schema, a view over the files of each table of an exported folder; an empty table where there are none."""
    folder, written = Path(folder).resolve(), described(folder)
    statements, made = [f"CREATE SCHEMA IF NOT EXISTS {schema}"], []
    for table in _tables():
        if table.name in MADE_TABLES and table.name not in written:
            made.append(f"CREATE VIEW {schema}.{table.name} AS {MADE_TABLES[table.name](schema)}")
            continue
        facts = written.get(table.name, {"rows": 0})
        if not facts["rows"]:
            columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
            statements.append(f"CREATE TABLE {schema}.{table.name} ({columns})")
            continue
        types = {column.name: column.type for column in table.columns}
        hive = ", ".join(f"'{name}': {types[name]}" for name in facts["folders"])
        options = f"hive_partitioning = true, hive_types = {{{hive}}}" if hive else "hive_partitioning = false"
        source = path_literal(folder / table.name, "/*" * len(facts["folders"]) + "/*.parquet")
        found = {name: name if name in facts["columns"] else MADE.get((table.name, name), "NULL") for name in types}
        columns = ", ".join(f"({found[name]})::{kind} AS {name}" for name, kind in types.items())
        statements.append(f"CREATE VIEW {schema}.{table.name} AS SELECT {columns} FROM read_parquet({source}, {options})")
    return "; ".join(statements + made)


def _of_all_groups(name):
    """A derived table's definition for all dictionaries and layers."""
    from cltdb.database.derived import definition

    return definition(name).replace("$dict_id", "dict_id").replace("$first", "layer").replace("$last", "layer")


def _tables():
    return [table for table in all_tables().values() if not table.is_view]


@cache
def _instance(folder, _made):
    """A DuckDB instance with the tables and views of an exported folder; one for all connections, until the folder is written anew."""
    connection = native.duckdb().connect(
        config=store.reader_config(folder) | {"temp_directory": f"{tempfile.gettempdir()}/cltdb-{os.getpid()}"}
    )
    connection.execute(READ_ONCE)
    connection.execute(views(folder, "main"))
    connection.execute(store.views())
    kinds = {name: "VIEW" for (name,) in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    for table in _tables():
        comments = [f"COMMENT ON {kinds.get(table.name, 'TABLE')} {table.name} IS {quoted(table.comment)}"]
        comments += [f"COMMENT ON COLUMN {table.name}.{column.name} IS {quoted(column.comment)}" for column in table.columns]
        connection.execute("; ".join(comments))
    connection.execute(
        f"SET allowed_directories = [{quoted(folder)}, {path_literal(folder)}]; SET enable_external_access = false; SET lock_configuration = true"
    )
    return connection


def close_instances():
    """Closes DuckDB's instances of this process, which removes their temporary files."""
    _instance.cache_clear()
    instances.close_instances()
