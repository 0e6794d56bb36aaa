"""Parquet of finished artifacts into tables, exactly once.

Reads: every `<artifact>/tables/<table>/<part>.parquet`, and `finished_at` of its manifest. Writes: the rows, and a record of the part
in `loaded_parts` in the same transaction. A large part arrives in several transactions, each recorded with the rows so far, so that no
reader waits long and a killed load continues where it was. Rows are matched by column name.
"""

import json
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cltdb.database.store import connect, now
from cltdb.database.tables import LOADED_TABLES
from cltdb.errors import CltdbError
from cltdb.workspace import MANIFEST, read_json

CHUNK_BYTES = 10_000_000
"""Uncompressed size of what one transaction inserts; about 0.3 s on two cores."""
HOLD_S = 0.3
"""No new transaction is begun after holding the database this long."""
PAUSE_S = 0.01
"""Left to readers between two holds."""


class Part(NamedTuple):
    """One Parquet file of an artifact."""

    table: str
    path: Path

    @property
    def name(self):
        return f"{self.table}/{self.path.stem}"


class Chunk(NamedTuple):
    """Consecutive rows of a part, small enough for one transaction."""

    part: Part
    rows: object  # pyarrow.Table
    first_row: int
    is_last: bool


def load_artifact(path, *, key, directory):
    """Loads the parts of artifact `key` in `directory` that the database at `path` does not have yet; returns the rows it read.

    A bad file is an error that names it; what was loaded before stays, and a later call loads what is missing.
    """
    parts = artifact_parts(directory)
    if not parts:
        return 0
    finished_at = _finished_at(directory)
    with connect(path, write=True) as connection:
        progress = _loaded_parts(connection, key)
    todo = [(part, *progress.get(part.name, (0, False))) for part in parts]
    chunks = (chunk for part, done_rows, complete in todo if not complete for chunk in _read_chunks(part, done_rows=done_rows))
    rows, chunk = 0, next(chunks, None)
    while chunk is not None:
        with connect(path, write=True) as connection:
            began = time.monotonic()
            while chunk is not None and time.monotonic() - began < HOLD_S:
                rows += _load_chunk(connection, chunk, key=key, finished_at=finished_at)
                chunk = next(chunks, None)
        time.sleep(PAUSE_S)
    return rows


def unload_artifact(path, *, key):
    """Takes out everything artifact `key` brought, for an artifact that is made again under the same key.

    Rows of earlier artifacts that it had replaced are to be loaded again: returns the keys of those artifacts.
    """
    with connect(path, write=True) as connection, _transaction(connection):
        tables = sorted({name.split("/")[0] for name in _loaded_parts(connection, key)})
        again = set()
        for table in tables:
            replaced = connection.execute(
                "SELECT DISTINCT artifact_key FROM loaded_parts WHERE superseded AND starts_with(part, ?) AND artifact_key <> ?",
                [f"{table}/", key]).fetchall()
            for artifact_key in (key, *(other for (other,) in replaced)):
                connection.execute(f"DELETE FROM {table} WHERE artifact_key = ?", [artifact_key])
                connection.execute("DELETE FROM loaded_parts WHERE artifact_key = ? AND starts_with(part, ?)", [artifact_key, f"{table}/"])
            again.update(other for (other,) in replaced)
        connection.execute("DELETE FROM loaded_artifacts WHERE artifact_key = ?", [key])
    return sorted(again)


def artifact_parts(directory):
    """The parts of an artifact in the order they are loaded; files of tables that do not exist are an error."""
    parts = [Part(path.parent.name, path) for path in sorted(Path(directory).glob("tables/*/*.parquet")) if not path.name.startswith(".")]
    for part in parts:
        if part.table not in LOADED_TABLES:
            raise CltdbError(str(part.path), found=f"rows for a table {part.table!r}", expected=f"one of {', '.join(LOADED_TABLES)}",
                             do="remove the file, or add the table with a migration")
    return parts


def save_experiment(path, *, experiment, spec_hash, spec_yaml, created_at=None):
    """Records a spec; the first record of (experiment, spec_hash) stays. `created_at`: datetime or ISO 8601 text, now by default."""
    with connect(path, write=True) as connection:
        connection.execute("INSERT INTO experiments VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                           [experiment, spec_hash, spec_yaml, _timestamp(created_at) or now()])


STAGE_RUN_COLUMNS = ("run_id", "experiment", "spec_hash", "stage", "key", "status", "started_at", "seconds", "host", "device", "versions", "error")


def save_stage_runs(path, rows):
    """Writes stage runs (dicts with the columns of `stage_runs`, missing ones NULL) over what is known of the same run_id."""
    values = [[_stage_run_value(row, column) for column in STAGE_RUN_COLUMNS] for row in rows]
    if not values:
        return
    with connect(path, write=True) as connection, _transaction(connection):
        connection.executemany(f"INSERT OR REPLACE INTO stage_runs VALUES ({', '.join('?' * len(STAGE_RUN_COLUMNS))})", values)


def _stage_run_value(row, column):
    value = row.get(column)
    if column == "started_at":
        return _timestamp(value)
    return json.dumps(value, sort_keys=True) if column == "versions" and isinstance(value, dict) else value


def _timestamp(value):
    """A datetime or ISO 8601 text as UTC without a zone; None stays None."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.astimezone(UTC).replace(tzinfo=None) if value is not None and value.tzinfo else value


def _finished_at(directory):
    """When the artifact was finished, as sortable text; empty without a manifest."""
    manifest = Path(directory) / MANIFEST
    finished_at = _timestamp(read_json(manifest).get("finished_at")) if manifest.is_file() else None
    return finished_at.isoformat(timespec="microseconds") if finished_at else ""


# Reading parts


def _read_chunks(part, *, done_rows):
    """The chunks of a part after its first `done_rows` rows; one empty chunk where nothing is left but its record."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(part.path) as file:
            n_rows, first_row = file.metadata.num_rows, 0
            if done_rows >= n_rows:
                yield Chunk(part, file.schema_arrow.empty_table(), first_row=n_rows, is_last=True)
            for batch in file.iter_batches(batch_size=_chunk_rows(file.metadata)):
                end = first_row + batch.num_rows
                if end > done_rows:
                    skip = max(0, done_rows - first_row)
                    yield Chunk(part, pa.Table.from_batches([batch.slice(skip)]), first_row=first_row + skip, is_last=end == n_rows)
                first_row = end
    except (pa.ArrowException, OSError) as error:
        raise CltdbError(str(part.path), found=f"a file that is no whole Parquet file ({error})", expected="Parquet as a stage wrote it",
                         do=f"remove the artifact {part.path.parents[2]} and run again") from error


def _chunk_rows(metadata):
    """Rows of a file that make up about CHUNK_BYTES."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(1000, min(500_000, int(CHUNK_BYTES * metadata.num_rows / max(size, 1))))


# Inserting chunks


def _load_chunk(connection, chunk, *, key, finished_at):
    """Inserts a chunk with its record in one transaction; returns its rows, or 0 where another process was faster."""
    import duckdb

    part = chunk.part
    with _transaction(connection):
        done_rows, complete = _loaded_parts(connection, key).get(part.name, (0, False))
        if complete or done_rows > chunk.first_row:
            return 0
        if done_rows < chunk.first_row:
            raise CltdbError(str(part.path), found="a part that was taken out of the database while it was loaded",
                             expected="one process at a time that loads or unloads an artifact", do="run again")
        connection.execute("INSERT OR REPLACE INTO loaded_artifacts VALUES (?, ?)", [key, finished_at])
        try:
            superseded = _insert_rows(connection, part, _with_naive_times(chunk.rows), key=key)
        except (duckdb.ConversionException, duckdb.ConstraintException, duckdb.BinderException, duckdb.TypeMismatchException) as error:
            raise CltdbError(str(part.path), found=f"rows that do not fit the table {part.table} ({error})",
                             expected="the table's columns and types", do=f"remove the artifact {part.path.parents[2]} and run again") from error
        connection.execute("INSERT OR REPLACE INTO loaded_parts VALUES (?, ?, ?, ?, ?, ?)",
                           [key, part.name, chunk.first_row + chunk.rows.num_rows, now(), chunk.is_last, superseded])
        _spread_superseded(connection, part.table, key)
    return chunk.rows.num_rows


def _insert_rows(connection, part, rows, *, key):
    """Inserts rows but those a later artifact holds, after removing what an earlier one held; returns whether any were held back."""
    _require_columns(connection, part, rows)
    names = ", ".join(f'"{name}"' for name in rows.column_names)
    group = ", ".join(LOADED_TABLES[part.table].group)
    earlier, later = _other_artifacts(connection, part.table, key)
    connection.register("incoming", rows)
    try:
        if earlier:
            removed = connection.execute(
                f"DELETE FROM {part.table} WHERE list_contains(?, artifact_key) AND ({group}) IN (SELECT DISTINCT ({group}) FROM incoming) "
                "RETURNING artifact_key", [earlier]).fetchall()
            for artifact_key in sorted({artifact_key for (artifact_key,) in removed}):
                connection.execute("UPDATE loaded_parts SET superseded = true WHERE artifact_key = ? AND starts_with(part, ?)",
                                   [artifact_key, f"{part.table}/"])
        held = f"WHERE ({group}) NOT IN (SELECT DISTINCT ({group}) FROM {part.table} WHERE list_contains($later, artifact_key))"
        inserted = connection.execute(
            f"INSERT INTO {part.table} ({names}, artifact_key) SELECT {names}, $key FROM incoming {held if later else ''}",
            {"key": key, "later": later} if later else {"key": key}).fetchone()[0]
    finally:
        connection.unregister("incoming")
    return inserted < rows.num_rows


def _spread_superseded(connection, table, key):
    """Marks all parts of the artifact's table where one is marked, so that the marks do not depend on the order of loading."""
    connection.execute(
        "UPDATE loaded_parts SET superseded = true WHERE artifact_key = $key AND starts_with(part, $prefix) AND NOT superseded AND EXISTS "
        "(FROM loaded_parts WHERE artifact_key = $key AND starts_with(part, $prefix) AND superseded)", {"key": key, "prefix": f"{table}/"})


def _other_artifacts(connection, table, key):
    """Keys of the artifacts with rows in `table` that were finished before, and after, artifact `key`."""
    others = connection.execute(
        "SELECT artifact_key, (finished_at, artifact_key) < (SELECT (finished_at, artifact_key) FROM loaded_artifacts WHERE artifact_key = $key)"
        " FROM loaded_artifacts WHERE artifact_key <> $key AND artifact_key IN"
        " (SELECT artifact_key FROM loaded_parts WHERE starts_with(part, $prefix)) ORDER BY ALL", {"key": key, "prefix": f"{table}/"}).fetchall()
    return [other for other, is_earlier in others if is_earlier], [other for other, is_earlier in others if not is_earlier]


def _require_columns(connection, part, rows):
    known = [name for (name,) in connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = ? AND column_name <> 'artifact_key' ORDER BY column_index",
        [part.table]).fetchall()]
    unknown = [name for name in rows.column_names if name not in known]
    missing = [name for name in LOADED_TABLES[part.table].key if name not in rows.column_names]
    if unknown or missing:
        found = f"unknown columns {', '.join(unknown)}" if unknown else f"no columns {', '.join(missing)}"
        raise CltdbError(str(part.path), found=found, expected=f"columns of {part.table}: {', '.join(known)}",
                         do=f"remove the artifact {part.path.parents[2]} and run again, or add the column with a migration")


def _with_naive_times(rows):
    """The rows with times that have a zone turned to UTC without one, as the tables hold them."""
    import pyarrow as pa

    for i, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz:
            rows = rows.set_column(i, field.name, rows.column(i).cast(pa.timestamp(field.type.unit)))
    return rows


def _loaded_parts(connection, key):
    """What is loaded of an artifact, as {part: (rows, complete)}."""
    found = connection.execute("SELECT part, rows, complete FROM loaded_parts WHERE artifact_key = ?", [key]).fetchall()
    return {part: (rows, complete) for part, rows, complete in found}


@contextmanager
def _transaction(connection):
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
