"""The database as a whole: checked, exported."""

import os
import shutil
from pathlib import Path

from cltdb.database.parts import artifact_parts, loaded_parts, made_when
from cltdb.database.query import ask
from cltdb.database.store import connect
from cltdb.database.tables import BOOKKEEPING, all_tables, loaded_tables
from cltdb.engine.workspace import explain_full_disk
from cltdb.errors import CltdbError


def check(path, *, artifacts=()):
    """What is wrong with the database, one sentence each; empty where nothing is.

    `artifacts`: (key, directory) pairs that ought to be loaded.
    """
    with connect(path) as connection:
        return [
            *_missing_comments(connection),
            *_duplicates(connection),
            *_orphans(connection),
            *_loose_ends(connection),
            *_miscounted(connection),
            *_missing_parts(connection, artifacts),
        ]


def read_all(path):
    """Reads every value of every table; CltdbError where the file is damaged."""
    with connect(path) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY ALL").fetchall():
            connection.execute(f"SELECT max(hash(COLUMNS(*))) FROM {table}").fetchall()


def _missing_comments(connection):
    bare = connection.execute(
        "SELECT table_name || '.' || column_name FROM duckdb_columns() WHERE NOT internal AND coalesce(comment, '') = ''"
        " UNION ALL SELECT table_name FROM duckdb_tables() WHERE NOT internal AND coalesce(comment, '') = ''"
        " UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND coalesce(comment, '') = '' ORDER BY 1"
    ).fetchall()
    return [f"{name} has no comment" for (name,) in bare]


def _duplicates(connection):
    for name, table in loaded_tables().items():
        key = ", ".join(table.key)
        (count,) = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {name} GROUP BY {key} HAVING count(*) > 1)"
        ).fetchone()
        if count:
            yield f"{name}: {count} keys ({key}) have more than one row"


def _orphans(connection):
    """Rows that refer to what is not there. Rows of an unfinished artifact may: what they refer to comes when it is finished."""
    unfinished = "(SELECT artifact_key FROM loaded_artifacts WHERE made_at = '')"
    for table in all_tables().values():
        for reference in table.references:
            pairs = list(zip(reference.columns, reference.other_columns, strict=True))
            present = [f"t.{column} IS NOT NULL" for column in reference.columns]
            if table.is_loaded:
                present.append(f"coalesce(t.artifact_key, '') NOT IN {unfinished}")
            (count,) = connection.execute(
                f"SELECT count(*) FROM {table.name} AS t ANTI JOIN {reference.table} AS r"
                f" ON {' AND '.join(f'r.{other} = t.{own}' for own, other in pairs)} WHERE {' AND '.join(present)}"
            ).fetchone()
            if count:
                yield f"{table.name}: {count} rows whose {', '.join(reference.columns)} is not in {reference.table}"


def _loose_ends(connection):
    for key, part in connection.execute("SELECT artifact_key, part FROM loaded_parts WHERE NOT complete ORDER BY ALL").fetchall():
        yield f"loaded_parts: {part} of artifact {key} is only partly loaded"
    for table in loaded_tables():
        for (key,) in connection.execute(
            f"SELECT DISTINCT artifact_key FROM {table} ANTI JOIN loaded_parts USING (artifact_key) ORDER BY ALL"
        ).fetchall():
            yield f"{table}: rows of artifact {key}, of which no part is recorded"


def _miscounted(connection):
    """Tables that have more or fewer rows of an artifact than were loaded; artifacts of which rows were replaced cannot be counted."""
    for table in loaded_tables():
        for key, loaded, there in connection.execute(
            "WITH loaded AS (SELECT artifact_key, sum(rows) AS n FROM loaded_parts WHERE starts_with(part, $prefix)"
            " GROUP BY artifact_key HAVING NOT bool_or(superseded)),"
            f" there AS (SELECT artifact_key, count(*) AS n FROM {table} GROUP BY artifact_key)"
            " SELECT artifact_key, loaded.n, coalesce(there.n, 0) FROM loaded LEFT JOIN there USING (artifact_key)"
            " WHERE loaded.n <> coalesce(there.n, 0) ORDER BY ALL",
            {"prefix": f"{table}/"},
        ).fetchall():
            yield f"{table}: {there:,} rows of artifact {key}, of which {loaded:,} were loaded"


def _missing_parts(connection, artifacts):
    made_at = dict(connection.execute("SELECT artifact_key, made_at FROM loaded_artifacts").fetchall())
    for key, directory in artifacts:
        loaded = loaded_parts(connection, key)
        for part in artifact_parts(directory):
            if not loaded.get(part.name, (0, False))[1]:
                yield f"{part.path} is not loaded"
        now = made_when(directory)
        if loaded and made_at.get(key) not in ("", None, now):
            yield f"artifact {key} was made again at {now}; its rows are of {made_at[key]}"


def export(path, directory):
    """Writes every table as Parquet to `directory`/<table>/, large ones in Hive-style folders (schema/README.md)."""
    import pyarrow.dataset as ds

    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CltdbError(
            str(directory), found="something that exists", expected="a new or empty directory", do="choose another one"
        )
    aside = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with explain_full_disk(directory):
        for table in (table for table in all_tables().values() if not table.is_view and table.name not in BOOKKEEPING):
            folders = list(table.export_folders)
            order = f"ORDER BY {', '.join(folders)}" if folders else ""
            with ask(path, f"SELECT * FROM {table.name} {order}") as reader:
                ds.write_dataset(
                    reader,
                    aside / table.name,
                    format="parquet",
                    partitioning=folders or None,
                    max_partitions=1_000_000,
                    partitioning_flavor="hive" if folders else None,
                    max_open_files=64,
                )
        if directory.exists():
            directory.rmdir()
        os.replace(aside, directory)
