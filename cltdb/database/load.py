"""Finished artifacts and run records into the database, exactly once each.

Parts load in short transactions with pauses between them, so that no reader waits long; a killed load continues where
it was.
"""

import logging
import math
import os
import time
from collections import deque
from functools import partial
from itertools import chain
from pathlib import Path

from cltdb.database.annotated import save_events
from cltdb.database.check import check, read_all
from cltdb.database.derived import SMALL_FEATURES, is_settled, mark, refresh, scattered_pieces, stale_pieces
from cltdb.database.embeddings import copy_embeddings, refresh_embeddings
from cltdb.database.literals import identifier, quoted
from cltdb.database.parts import CHUNK_BYTES, ROW_GROUPS, Loaded, artifact_parts, load_chunk, loaded_parts, made_when, read_chunks
from cltdb.database.problem import Unsound
from cltdb.database.records import select_records
from cltdb.database.store import connect, connect_current, exclusive, now, remove_database, transaction
from cltdb.database.tables import all_tables
from cltdb.database.words import changed_words, refresh_words
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
__all__ = [
    "forget_provisional",
    "load_artifact",
    "load_artifacts",
    "lacks",
    "load_missing",
    "is_sound",
    "known_artifacts",
    "rebuild",
    "save_records",
    "unload_artifact",
]

HOLD_S = 0.15
"""No new transaction is begun after holding the database this long."""
LARGE_BYTES = 50_000_000
"""Parquet of more than this is a large load (`store.connect`): a million features have 1.7 GB."""
PAUSE_S = 0.01
"""Pause between two holds, in which readers get in."""


def load_artifact(path, *, key, directory, **options):
    """Loads one artifact, as `load_artifacts` does."""
    return load_artifacts(path, [(key, directory)], **options)


def load_artifacts(path, artifacts, *, table=None, wait_s=None, budget_s=math.inf, hold_s=None):
    """Loads the parts of `artifacts`, (key, directory) pairs, that the database at `path` does not have yet; returns the rows it read.

    Where nothing is missing the database is only read. A bad file is an error that names it. What was loaded before it stays, and a later
    call loads what is missing. Rows that were published while an artifact was unfinished (it had no manifest) are taken out and loaded
    from the finished one. `table`: only the parts of this table. `wait_s`: how long to wait for other processes (as in `connect`).
    `budget_s`: after this long, what is left is for the next call. `hold_s`: no transaction begins after holding the database this long
    (default HOLD_S).
    """
    deadline = time.monotonic() + budget_s
    parts = {(key, directory): _parts_of(directory, table) for key, directory in artifacts}
    if not any(parts.values()):
        return 0
    known, is_behind = {}, False
    if Path(path).is_file():
        with connect_current(path, timeout_s=wait_s) as connection:
            known = _known(connection, [key for key, _ in parts])
            is_behind = not any(_lacking(known, key, of_one) for (key, _), of_one in parts.items()) and _is_behind(connection)
    work = _to_load(parts, known)
    first = next(work, None)
    if first is None and not is_behind:
        return 0
    sizes = [part.path.stat().st_size for of_artifact in parts.values() for part in of_artifact if part.path.exists()]
    large, work = sum(sizes) > LARGE_BYTES, chain([first] if first else [], work)
    rows = _work_off(path, work, large=large, wait_s=wait_s, deadline=deadline, hold_s=hold_s)
    if table is None and time.monotonic() < deadline and refresh_words(path):
        refresh_embeddings(path)
    return rows


def _work_off(path, work, *, large=False, wait_s=None, deadline=math.inf, hold_s=None):
    """Does what `work` says, (function of a connection that returns how many rows it loaded, bytes, rows of a row group) triples, then makes
    stale derived tables anew, until the deadline is over. The database is held for a short while at a time, and nothing is read meanwhile.
    Returns the rows."""
    work, steps, rows, began, hold_s = iter(work), deque(), 0, None, HOLD_S if hold_s is None else hold_s
    while time.monotonic() < deadline:
        if not steps:
            found, row_group = _next_steps(path, work, large=large, wait_s=wait_s)
            steps.extend(found)
        if not steps:
            break
        if began is not None:
            time.sleep(PAUSE_S)
        with connect(path, write=True, row_group=row_group, timeout_s=wait_s) as connection:
            began, step = time.monotonic(), None
            while steps and time.monotonic() - began < hold_s:
                step = steps.popleft()
                rows += step(connection)
            if step is _refresh_small and not steps and is_settled(connection):
                break  # without a look of its own at what is left, of 10 ms
    return rows


def _next_steps(path, work, *, large, wait_s):
    """(functions of a connection that come next in `work`, about CHUNK_BYTES, or at its end those that make derived tables anew and put their rows
    in order; rows of a row group of a large load, the fewest of these, or None). What cannot be read is an error when its turn comes."""
    steps, n_bytes, row_group = [], 0, ROW_GROUPS[0] if large else None
    try:
        for step, of_step, of_its_groups in work:
            steps.append(step)
            n_bytes, row_group = n_bytes + of_step, row_group and min(row_group, of_its_groups)
            if n_bytes >= CHUNK_BYTES:
                return steps, row_group
    except CltdbError as error:
        return [*steps, partial(_refuse, error=error)], row_group
    if steps:
        return [*steps, _refresh_small], row_group
    with connect_current(path, timeout_s=wait_s) as connection:
        if pieces := stale_pieces(connection):
            return pieces, row_group
        return scattered_pieces(connection), ROW_GROUPS[0]


def settle(path):
    """Makes anew what is stale of tables that are made from others, and the words of dictionaries, without loading anything."""
    _work_off(path, [])
    refresh_words(path)


def _refuse(_, *, error):
    raise error


def _refresh_small(connection):
    refresh(connection, most_features=SMALL_FEATURES)
    return 0


def _parts_of(directory, table):
    return [part for part in artifact_parts(directory) if table in (None, part.table)]


def _known(connection, keys):
    """{key: (when it was made, {part: Loaded})} of artifacts that the database knows."""
    made = connection.execute(
        "SELECT artifact_key, made_at FROM loaded_artifacts WHERE list_contains(?, artifact_key)", [keys]
    ).fetchall()
    parts = loaded_parts(connection, *(key for key, _ in made))
    return {key: (made_at, of_one) for (key, made_at), of_one in zip(made, parts, strict=True)}


def _is_behind(connection):
    """True where a derived table or the words of a dictionary are not made from what is there, or rows are to be put in order."""
    return not is_settled(connection) or bool(changed_words(connection))


def _lacking(known, key, parts):
    """Those `parts` of an artifact that are not wholly loaded."""
    _, progress = known.get(key, ("", {}))
    return [part for part in parts if not progress.get(part.name, Loaded()).complete]


def _to_load(parts, known):
    """Functions of a connection that load what is missing, each in one transaction, and return the rows they read; each with its bytes and the rows of its row
    groups."""
    for (key, directory), of_artifact in parts.items():
        made_at, (known_as, progress) = made_when(directory), known.get(key, (None, {}))
        if made_at and known_as == "":
            progress = {}
            yield partial(_forget_provisional, key=key), 0, ROW_GROUPS[0]
        done = [(part, progress.get(part.name, Loaded())) for part in of_artifact]
        todo = [(part, loaded.rows) for part, loaded in done if not loaded.complete]
        for chunk in read_chunks(todo):
            yield partial(load_chunk, chunk=chunk, key=key, made_at=made_at), chunk.rows.nbytes, chunk.row_group


def unload_artifact(path, *, key):
    """Takes out all rows of artifact `key`, which is made again under the same key; returns keys of artifacts to load again.

    These are the earlier artifacts of which it had replaced rows. Their rows are taken out of the same tables.
    """
    with connect(path, write=True) as connection, transaction(connection):
        again = set()
        for table in _tables_of(connection, key):
            replaced = connection.execute(
                "SELECT DISTINCT artifact_key FROM loaded_parts WHERE superseded AND starts_with(part, ?) AND artifact_key <> ?",
                [f"{table}/", key],
            ).fetchall()
            for artifact_key in (key, *(other for (other,) in replaced)):
                _delete_rows(connection, table, artifact_key)
                connection.execute(
                    "DELETE FROM loaded_parts WHERE artifact_key = ? AND starts_with(part, ?)", [artifact_key, f"{table}/"]
                )
            again.update(other for (other,) in replaced)
        connection.execute("DELETE FROM loaded_artifacts WHERE artifact_key = ?", [key])
    _work_off(path, [(_refresh_small, 0, ROW_GROUPS[0])])
    refresh_words(path)
    return sorted(again)


def _tables_of(connection, key):
    [loaded] = loaded_parts(connection, key)
    return sorted({name.split("/")[0] for name in loaded})


def _delete_rows(connection, table, key):
    connection.execute("SET VARIABLE doomed = ?::VARCHAR", [key])
    doomed = f"FROM {table} WHERE artifact_key = getvariable('doomed')"
    mark(connection, table, doomed)
    connection.execute(f"DELETE {doomed}")


def forget_provisional(path, *, key, wait_s=None):
    """Takes out what was published of artifact `key` before it was finished."""
    with connect(path, write=True, timeout_s=wait_s) as connection:
        _forget_provisional(connection, key)


def _forget_provisional(connection, key):
    made_at = connection.execute("SELECT made_at FROM loaded_artifacts WHERE artifact_key = ?", [key]).fetchone()
    if made_at == ("",):
        with transaction(connection):
            for table in _tables_of(connection, key):
                _delete_rows(connection, table, key)
            for table in ("loaded_parts", "loaded_artifacts"):
                connection.execute(f"DELETE FROM {table} WHERE artifact_key = ?", [key])
    return 0


def lacks(path, artifacts):
    """(keys of those `artifacts`, (key, directory) pairs, of which the database lacks a part or has another making, whether a derived
    table is stale)."""
    with connect_current(path) as connection:
        known, is_behind = _known(connection, [key for key, _ in artifacts]), _is_behind(connection)
    return [key for key, directory in artifacts if _is_absent(known, key, directory)], is_behind


def made_again(path, artifacts):
    """Keys of those `artifacts`, (key, directory) pairs, that were made again under their key since they were loaded."""
    if not Path(path).is_file():
        return []
    with connect_current(path) as connection:
        known = _known(connection, [key for key, _ in artifacts])
    return [key for key, directory in artifacts if _is_other(known, key, directory)]


def _is_other(known, key, directory):
    return known.get(key, ("", {}))[0] not in ("", made_when(directory))


def known_artifacts(path):
    """Keys of the finished artifacts that the database knows."""
    with connect_current(path) as connection:
        return {key for (key,) in connection.execute("SELECT artifact_key FROM loaded_artifacts WHERE made_at <> ''").fetchall()}


def load_missing(path, artifacts):
    """Loads what is missing of those `artifacts`, (key, directory) pairs, that the database knows. A part is missing where a later
    artifact had replaced its rows and was then taken out (`unload_artifact`)."""
    with connect_current(path) as connection:
        known = _known(connection, [key for key, _ in artifacts])
    load_artifacts(path, [(key, directory) for key, directory in artifacts if key in known])


def _is_absent(known, key, directory):
    return _is_other(known, key, directory) or bool(_lacking(known, key, artifact_parts(directory)))


# Run records


def save_records(path, *, experiments, stage_runs, wait_s=None):
    """Writes run records: dicts with the columns of the two tables, missing ones NULL. Of an experiment the first record stays, but for
    its sweep, which may come later; of a run the last.

    Times are datetimes or ISO 8601 text, `versions` and `swept` a dict or JSON text. `wait_s`: as in `connect`.
    """
    experiments = [{**row, "created_at": row.get("created_at") or now()} for row in experiments]
    keep_first = "ON CONFLICT DO UPDATE SET sweep = coalesce(sweep, excluded.sweep), swept = coalesce(swept, excluded.swept)"
    with connect(path, write=True, timeout_s=wait_s) as connection, transaction(connection):
        _insert_records(connection, "INSERT", "experiments", experiments, keep_first)
        _insert_records(connection, "INSERT OR REPLACE", "stage_runs", stage_runs)


def _insert_records(connection, insert, table, records, conflict=""):
    """Writes records that differ from those that are there."""
    if records:
        connection.execute(f"{insert} INTO {table} ({select_records(connection, table, records)} EXCEPT FROM {table}) {conflict}")


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
