"""Finished artifacts and run records into the database, exactly once each.

Parts load in short transactions with pauses between them, so that no reader waits long; a killed load continues where
it was.
"""

import json
import math
import os
import time
from pathlib import Path

from cltdb.database.maintain import check, export, read_all
from cltdb.database.parts import artifact_parts, load_chunk, loaded_parts, made_when, read_chunks, timestamp
from cltdb.database.store import connect, exclusive, now, transaction
from cltdb.database.tables import all_tables
from cltdb.engine.locks import held
from cltdb.errors import CltdbError

__all__ = [
    "absent_artifacts",
    "check",
    "export",
    "forget_provisional",
    "load_artifact",
    "load_missing",
    "is_sound",
    "rebuild",
    "save_records",
    "unload_artifact",
]

HOLD_S = 0.3
"""No new transaction is begun after holding the database this long."""
PAUSE_S = 0.01
"""Pause between two holds, in which readers get in."""


def load_artifact(path, *, key, directory, table=None, wait_s=None, budget_s=math.inf):
    """Loads the parts of artifact `key` in `directory` that the database at `path` does not have yet; returns the
    rows it read.

    A bad file is an error that names it. What was loaded before it stays, and a later call loads what is missing. Rows that were
    published while the artifact was unfinished (it had no manifest) are taken out and loaded from the finished one. `table`: only the
    parts of this table. `wait_s`: how long to wait for other processes (as in `connect`). `budget_s`: after this long, what is left is
    for the next call.
    """
    parts = [part for part in artifact_parts(directory) if table in (None, part.table)]
    if not parts:
        return 0
    began_all, made_at = time.monotonic(), made_when(directory)
    with connect(path, write=True, timeout_s=wait_s) as connection:
        if made_at:
            _forget_provisional(connection, key)
        progress = loaded_parts(connection, key)
    todo = [(part, *progress.get(part.name, (0, False))) for part in parts]
    chunks = (chunk for part, done_rows, complete in todo if not complete for chunk in read_chunks(part, done_rows=done_rows))
    rows, chunk = 0, next(chunks, None)
    while chunk is not None and time.monotonic() - began_all < budget_s:
        with connect(path, write=True, timeout_s=wait_s) as connection:
            began = time.monotonic()
            while chunk is not None and time.monotonic() - began < HOLD_S:
                rows += load_chunk(connection, chunk, key=key, made_at=made_at)
                chunk = next(chunks, None)
        time.sleep(PAUSE_S)
    return rows


def unload_artifact(path, *, key):
    """Takes out all rows of artifact `key`, which is made again under the same key; returns keys of artifacts to load again.

    These are the earlier artifacts of which it had replaced rows. Their rows are taken out of the same tables.
    """
    with connect(path, write=True) as connection, transaction(connection):
        tables = sorted({name.split("/")[0] for name in loaded_parts(connection, key)})
        again = set()
        for table in tables:
            replaced = connection.execute(
                "SELECT DISTINCT artifact_key FROM loaded_parts WHERE superseded AND starts_with(part, ?) AND artifact_key <> ?",
                [f"{table}/", key],
            ).fetchall()
            for artifact_key in (key, *(other for (other,) in replaced)):
                connection.execute(f"DELETE FROM {table} WHERE artifact_key = ?", [artifact_key])
                connection.execute(
                    "DELETE FROM loaded_parts WHERE artifact_key = ? AND starts_with(part, ?)", [artifact_key, f"{table}/"]
                )
            again.update(other for (other,) in replaced)
        connection.execute("DELETE FROM loaded_artifacts WHERE artifact_key = ?", [key])
    return sorted(again)


def forget_provisional(path, *, key, wait_s=None):
    """Takes out what was published of artifact `key` before it was finished."""
    with connect(path, write=True, timeout_s=wait_s) as connection:
        _forget_provisional(connection, key)


def _forget_provisional(connection, key):
    made_at = connection.execute("SELECT made_at FROM loaded_artifacts WHERE artifact_key = ?", [key]).fetchone()
    if made_at != ("",):
        return
    with transaction(connection):
        for table in sorted({name.split("/")[0] for name in loaded_parts(connection, key)}):
            connection.execute(f"DELETE FROM {table} WHERE artifact_key = ?", [key])
        for table in ("loaded_parts", "loaded_artifacts"):
            connection.execute(f"DELETE FROM {table} WHERE artifact_key = ?", [key])


def absent_artifacts(path, artifacts):
    """The keys of those `artifacts`, (key, directory) pairs, of which the database lacks a part."""
    with connect(path, write=True) as connection:  # to write: a database of an earlier cltdb is brought up to date first
        return [key for key, directory in artifacts if _is_absent(connection, key, directory)]


def load_missing(path, artifacts):
    """Loads what is missing of those `artifacts`, (key, directory) pairs, that the database knows. A part is missing where a later
    artifact had replaced its rows and was then taken out (`unload_artifact`)."""
    with connect(path, write=True) as connection:
        known = {key for (key,) in connection.execute("SELECT artifact_key FROM loaded_artifacts").fetchall()}
        todo = [(key, directory) for key, directory in artifacts if key in known and _is_absent(connection, key, directory)]
    for key, directory in todo:
        load_artifact(path, key=key, directory=directory)


def _is_absent(connection, key, directory):
    loaded = loaded_parts(connection, key)
    return any(not loaded.get(part.name, (0, False))[1] for part in artifact_parts(directory))


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
    columns = all_tables()[table].columns
    rows = [[_record_value(record.get(column.name), column.type) for column in columns] for record in records]
    if rows:
        names = ", ".join(column.name for column in columns)
        connection.executemany(f"{insert} INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))}) {conflict}", rows)


def _record_value(value, type):
    if type == "TIMESTAMP":
        return timestamp(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def is_sound(path):
    """True where there is a database of which every value can be read."""
    try:
        return Path(path).is_file() and read_all(path) is None
    except CltdbError:
        return False


def rebuild(path, *, artifacts, experiments, stage_runs, unfinished=()):
    """Makes the database anew from artifacts and run records and puts it in the place of the old one; returns the
    rows loaded.

    `artifacts`: (key, directory) pairs in any order; `unfinished`: those of trainings that are not finished, of which the
    metrics are loaded; `experiments`, `stage_runs`: as in `save_records`. The old database serves until the new one is whole.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.rebuild")
    with _only_rebuild(path):
        _remove(aside)
        save_records(aside, experiments=experiments, stage_runs=stage_runs)
        rows = sum(load_artifact(aside, key=key, directory=directory) for key, directory in artifacts)
        rows += sum(load_artifact(aside, key=key, directory=directory, table="metrics") for key, directory in unfinished)
        with exclusive(path):
            Path(f"{path}.wal").unlink(missing_ok=True)  # of a writer that was killed; it belongs to the old file
            os.replace(aside, path)
        _remove(aside)
    return rows


def _only_rebuild(path):
    refused = CltdbError(
        str(path), found="another process that rebuilds it", expected="one rebuild at a time", do="wait for it to end"
    )
    return held(f"{path}.rebuilding", refused=refused)


def _remove(aside):
    for suffix in ("", ".wal", ".turn", ".lock"):
        Path(f"{aside}{suffix}").unlink(missing_ok=True)
