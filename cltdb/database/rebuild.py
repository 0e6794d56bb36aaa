"""The database made anew from finished artifacts and run records."""

import logging
import math
import os
from pathlib import Path

from cltdb.database.annotated import save_events
from cltdb.database.check import check, read_all
from cltdb.database.embeddings import copy_embeddings
from cltdb.database.literals import identifier, quoted
from cltdb.database.load import load_artifacts, save_records
from cltdb.database.problem import Unsound
from cltdb.database.store import connect, connect_current, exclusive, remove_database, transaction
from cltdb.database.tables import all_tables
from cltdb.engine.locks import held
from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
OWN = """WITH found AS (
    SELECT schema_name, table_name, table_name AS name, 'TABLE' AS kind, sql, comment FROM duckdb_tables() WHERE database_name = 'earlier' AND NOT internal
    UNION ALL
    SELECT schema_name, view_name, view_name, 'VIEW', sql, comment FROM duckdb_views() WHERE database_name = 'earlier' AND NOT internal
    UNION ALL
    SELECT schema_name, NULL, sequence_name, 'SEQUENCE', regexp_extract(sql, ' INCREMENT BY [^"]*$'), NULL FROM duckdb_sequences()
    WHERE database_name = 'earlier'
    UNION ALL
    SELECT schema_name, NULL, function_name, 'MACRO', '(' || array_to_string(parameters, ', ') || ') AS ' ||
           if(function_type = 'table_macro', 'TABLE ', '') || macro_definition, NULL
    FROM duckdb_functions() WHERE database_name = 'earlier' AND NOT internal AND macro_definition IS NOT NULL
        AND (schema_name, function_name) NOT IN (SELECT (schema_name, function_name) FROM duckdb_functions() WHERE database_name = current_database())
), own AS (
    SELECT *, format('"{}"."{}"', replace(schema_name, '"', '""'), replace(name, '"', '""')) AS quoted FROM found
), columns AS (
    SELECT schema_name, table_name, '"' || replace(column_name, '"', '""') || '"' AS name, comment, is_generated, column_index
    FROM duckdb_columns() WHERE database_name = 'earlier' AND NOT internal
), filled AS (
    SELECT schema_name, table_name, array_to_string(list(name ORDER BY column_index), ', ') AS names
    FROM columns WHERE NOT is_generated GROUP BY ALL
), comments AS (
    SELECT schema_name, table_name, kind || ' ' || quoted AS place, comment FROM own
    UNION ALL
    SELECT schema_name, table_name, 'COLUMN ' || quoted || '.' || c.name, c.comment FROM columns AS c JOIN own USING (schema_name, table_name)
)
SELECT schema_name, table_name, quoted,
       CASE kind WHEN 'TABLE' THEN format('{} INSERT INTO {} ({}) SELECT {} FROM earlier.{}', sql, quoted, names, names, quoted)
                 WHEN 'VIEW' THEN sql ELSE format('CREATE {} {}{}', kind, quoted, sql) END,
       if(kind = 'TABLE', format('CREATE TABLE {} AS FROM earlier.{}', quoted, quoted), NULL)
FROM own LEFT JOIN filled USING (schema_name, table_name)
UNION ALL
SELECT schema_name, table_name, 'index ' || index_name, sql, NULL FROM duckdb_indexes() WHERE database_name = 'earlier'
UNION ALL
SELECT schema_name, table_name, 'the comment of ' || place, format('COMMENT ON {} IS ''{}''', place, replace(comment, '''', '''''')), NULL
FROM comments WHERE comment IS NOT NULL"""
"""(schema, table or view, what is made, the SQL that makes it, and that which makes a table without its constraints) of tables, views, sequences,
macros, indexes and comments in the database `earlier`."""


def is_sound(path):
    """True where there is a database of which every value can be read."""
    try:
        return Path(path).is_file() and read_all(path) is None
    except CltdbError:
        return False


def rebuild(path, *, artifacts, experiments, stage_runs, unfinished=(), events=()):
    """Makes the database anew from artifacts and run records, checks it and puts it in the place of the old one; returns what is wrong with
    it, which is nothing where the artifacts are sound. A database that is sound makes no room for one that is not: CltdbError.

    `artifacts`: (key, directory) pairs in any order; `unfinished`: those of trainings that are not finished, of which the
    metrics are loaded; `experiments`, `stage_runs`: as in `save_records`; `events`: of the logs of users. The old database serves until the new one is whole.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.rebuild")
    with _only_rebuild(path):
        remove_database(aside)
        save_records(aside, experiments=experiments, stage_runs=stage_runs)
        _take_over(aside, path)
        load_artifacts(aside, artifacts, hold_s=math.inf)
        load_artifacts(aside, unfinished, table="metrics", hold_s=math.inf)
        save_events(aside, events)
        problems = check(aside, artifacts=artifacts, events=events, experiments=experiments, stage_runs=stage_runs)
        if problems and _has_no_problem(path):
            raise Unsound(
                str(path),
                problems=problems,
                found=f"{len(problems)} problems in what was made of the artifacts: {problems[0]}",
                expected="none, as in the database that is there, which stays",
                do="do what `cltdb db check --full` says of the artifacts; or move the database away, and the one with these problems takes its place",
            )
        with exclusive(path):
            Path(f"{path}.wal").unlink(missing_ok=True)  # of a writer that was killed; it belongs to the old file
            os.replace(aside, path)
        remove_database(aside)
    return problems


def _take_over(path, earlier):
    """Takes over what no artifact brings of an earlier database: embeddings, which were paid for, and what users made. Says where it cannot be read."""
    if not Path(earlier).exists():
        return
    try:
        with connect_current(earlier), connect(path, write=True) as connection:
            connection.execute(f"ATTACH {quoted(earlier)} AS earlier (READ_ONLY)")
            copy_embeddings(connection, ["earlier"])
            _copy_own(connection)
            connection.execute("DETACH earlier")
    except CltdbError as error:
        logger.warning("embeddings, and tables of your own, are not taken over: %s", error)


def _copy_own(connection):
    """Copies what users made in the database `earlier`; says what could not be, and which tables have lost their constraints."""
    for (schema,) in connection.execute("SELECT schema_name FROM duckdb_schemas() WHERE database_name = 'earlier'").fetchall():
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")
    found = connection.execute(OWN).fetchall()
    left = [*_own_types(connection), *(made for schema, table, *made in found if schema != "main" or table not in all_tables())]
    while left:  # what reads another comes after it, in whatever order they are found
        errors = [_error_of(connection, sql) for _, sql, _ in left]
        failed = [(*made, error) for made, error in zip(left, errors, strict=True) if error]
        if len(failed) == len(left):
            failed = _without_constraints(connection, failed)
        left = [made for *made, _ in failed]


def _own_types(connection):
    """As OWN gives them without schema and table: the types of the database `earlier`, enums and other names, of which DuckDB keeps no SQL."""
    types = "SELECT schema_name, type_name, comment FROM duckdb_types() WHERE database_name = 'earlier' AND NOT internal ORDER BY type_oid"
    for schema, name, comment in connection.execute(types).fetchall():
        made = identifier(schema, name)
        [(definition,)] = connection.execute(f"SELECT typeof(NULL::earlier.{made})").fetchall()
        said = f"; COMMENT ON TYPE {made} IS {quoted(comment)}" if comment else ""
        yield f"type {made}", f"CREATE TYPE {made} AS {definition}{said}", None


def _without_constraints(connection, failed):
    """Makes the first table of what failed without its constraints and returns the rest, which may do now; of others says what failed."""
    table = next((made for made in failed if made[2]), None)
    if table is None:
        for name, *_, error in failed:
            logger.warning("%s, which is your own, is not in the database made anew: %s", name, error)
        return []
    name, _, plain, error = table
    logger.warning("%s, which is your own, has lost its constraints in the database made anew: %s", name, error)
    if error := _error_of(connection, plain):
        logger.warning("%s, which is your own, is not in the database made anew: %s", name, error)
    return [made for made in failed if made is not table]


def _error_of(connection, sql):
    """Runs statements, all or none; DuckDB's error in one line, or None."""
    import duckdb

    try:
        with transaction(connection):
            connection.execute(sql)
    except duckdb.Error as error:
        return " ".join(str(error).split())[:200]
    return None


def _has_no_problem(path):
    try:
        return is_sound(path) and not check(path)
    except CltdbError:  # of an earlier cltdb
        return False


def _only_rebuild(path):
    refused = CltdbError(
        str(path), found="another process that rebuilds it", expected="one rebuild at a time", do="wait for it to end"
    )
    return held(f"{path}.rebuilding", refused=refused)
