"""One Parquet file of an artifact into its table: read in chunks, each inserted with its record in one transaction.

Reads: `<artifact>/tables/<table>/<part>.parquet`. Writes: the rows, and `loaded_parts`. Columns are matched by name.
"""

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cltdb.database.store import now, transaction
from cltdb.database.tables import ARTIFACT_KEY, loaded_tables
from cltdb.engine.integrity import MANIFEST, checked, read_manifest, remedy
from cltdb.errors import CltdbError

CHUNK_BYTES = 10_000_000
"""Uncompressed size of what one transaction inserts; about 0.3 s on two cores."""


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


def artifact_parts(directory):
    """The parts of an artifact in the order they are loaded: a table after those it refers to. A file of a table that does not exist is
    an error."""
    order = list(loaded_tables())
    parts = [
        Part(path.parent.name, path)
        for path in sorted(Path(directory).glob("tables/*/*.parquet"))
        if not path.name.startswith(".")
    ]
    for part in parts:
        if part.table not in order:
            raise CltdbError(
                str(part.path),
                found=f"rows for a table {part.table!r}",
                expected=f"one of {', '.join(order)}",
                do="remove the file, or add the table with a migration",
            )
    return sorted(parts, key=lambda part: (order.index(part.table), part.path.stem))


def made_when(directory):
    """When the artifact was made, as sortable text; empty without a manifest."""
    is_finished = (Path(directory) / MANIFEST).is_file()
    started_at = timestamp(read_manifest(directory).get("started_at")) if is_finished else None
    return started_at.isoformat(timespec="microseconds") if started_at else ""


def timestamp(value):
    """A datetime or ISO 8601 text as UTC without a zone; None stays None."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.astimezone(UTC).replace(tzinfo=None) if value is not None and value.tzinfo else value


# Reading parts


def read_chunks(part, *, done_rows):
    """The chunks of a part after its first `done_rows` rows; one empty chunk where nothing is left but its record."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(checked(part.path), page_checksum_verification=True) as file:
            n_rows, first_row = file.metadata.num_rows, 0
            if done_rows >= n_rows:
                yield Chunk(part, file.schema_arrow.empty_table(), first_row=n_rows, is_last=True)
            for batch in file.iter_batches(batch_size=_chunk_rows(file.metadata)):
                end = first_row + batch.num_rows
                if end > done_rows:
                    skip = max(0, done_rows - first_row)
                    yield Chunk(
                        part, pa.Table.from_batches([batch.slice(skip)]), first_row=first_row + skip, is_last=end == n_rows
                    )
                first_row = end
    except (pa.ArrowException, OSError) as error:
        raise CltdbError(
            str(part.path),
            found=f"a file that is no whole Parquet file ({error})",
            expected="Parquet as a stage wrote it",
            do=remedy(part.path.parents[2]),
        ) from error


def _chunk_rows(metadata):
    """Rows of a file that make up about CHUNK_BYTES."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(1000, min(500_000, int(CHUNK_BYTES * metadata.num_rows / max(size, 1))))


# Inserting chunks


def load_chunk(connection, chunk, *, key, made_at):
    """Inserts a chunk with its record in one transaction; returns its rows, or 0 where another process was faster."""
    import duckdb

    part = chunk.part
    with _incoming(connection, _with_naive_times(chunk.rows)), transaction(connection):
        done_rows, complete = loaded_parts(connection, key).get(part.name, (0, False))
        if complete or done_rows > chunk.first_row:
            return 0
        if done_rows < chunk.first_row:
            raise CltdbError(
                str(part.path),
                found="a part that was taken out of the database while it was loaded",
                expected="one process at a time that loads or unloads an artifact",
                do="run again",
            )
        connection.execute(
            "INSERT INTO loaded_artifacts VALUES (?, ?) ON CONFLICT DO UPDATE SET made_at = greatest(made_at, excluded.made_at)",
            [key, made_at],
        )
        try:
            superseded = _insert_rows(connection, part, chunk.rows, key=key)
        except (
            duckdb.ConversionException,
            duckdb.ConstraintException,
            duckdb.BinderException,
            duckdb.TypeMismatchException,
        ) as error:
            raise CltdbError(
                str(part.path),
                found=f"rows that do not fit the table {part.table} ({error})",
                expected="the table's columns and types",
                do=f"remove the artifact {part.path.parents[2]} and run again",
            ) from error
        connection.execute(
            "INSERT INTO loaded_parts VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET rows = excluded.rows, "
            "loaded_at = excluded.loaded_at, complete = excluded.complete, superseded = superseded OR excluded.superseded",
            [key, part.name, chunk.first_row + chunk.rows.num_rows, now(), chunk.is_last, superseded],
        )
        _spread_superseded(connection, part.table, key)
    return chunk.rows.num_rows


@contextmanager
def _incoming(connection, rows):
    """The rows as the table `incoming` of the connection."""
    connection.register("incoming", rows)
    try:
        yield
    finally:
        connection.unregister("incoming")


def _insert_rows(connection, part, rows, *, key):
    """Inserts the rows of `incoming`, less the groups of which a later artifact has rows; returns whether there were such groups.

    Rows that earlier artifacts have of the same groups are removed first (`Table.replaced_together`).
    """
    _require_columns(part, rows)
    names = ", ".join(f'"{name}"' for name in rows.column_names)
    group = ", ".join(loaded_tables()[part.table].replaced_together)
    earlier, later = _other_artifacts(connection, part.table, key)
    if earlier:
        removed = connection.execute(
            f"DELETE FROM {part.table} WHERE list_contains(?, artifact_key) "
            f"AND ({group}) IN (SELECT DISTINCT ({group}) FROM incoming) "
            "RETURNING artifact_key",
            [earlier],
        ).fetchall()
        for artifact_key in sorted({artifact_key for (artifact_key,) in removed}):
            connection.execute(
                "UPDATE loaded_parts SET superseded = true WHERE artifact_key = ? AND starts_with(part, ?)",
                [artifact_key, f"{part.table}/"],
            )
    held = f"ANTI JOIN (SELECT DISTINCT {group} FROM {part.table} WHERE list_contains($later, artifact_key)) USING ({group})"
    inserted = connection.execute(
        f"INSERT INTO {part.table} ({names}, artifact_key) SELECT {names}, $key FROM incoming {held if later else ''}",
        {"key": key, "later": later} if later else {"key": key},
    ).fetchone()[0]
    return inserted < rows.num_rows


def _spread_superseded(connection, table, key):
    """Marks all parts of an artifact's table as superseded where one of them is, so that the order of loading makes no difference."""
    connection.execute(
        "UPDATE loaded_parts SET superseded = true WHERE artifact_key = $key AND starts_with(part, $prefix) AND NOT superseded "
        "AND EXISTS (FROM loaded_parts WHERE artifact_key = $key AND starts_with(part, $prefix) AND superseded)",
        {"key": key, "prefix": f"{table}/"},
    )


def _other_artifacts(connection, table, key):
    """Keys of the artifacts with rows in `table` that were finished before, and after, artifact `key`."""
    others = connection.execute(
        "SELECT artifact_key,"
        " (made_at, artifact_key) < (SELECT (made_at, artifact_key) FROM loaded_artifacts WHERE artifact_key = $key)"
        " FROM loaded_artifacts WHERE artifact_key <> $key AND artifact_key IN"
        " (SELECT artifact_key FROM loaded_parts WHERE starts_with(part, $prefix)) ORDER BY ALL",
        {"key": key, "prefix": f"{table}/"},
    ).fetchall()
    return [other for other, is_earlier in others if is_earlier], [other for other, is_earlier in others if not is_earlier]


def _require_columns(part, rows):
    table = loaded_tables()[part.table]
    known = [name for name in table.column_names if name != ARTIFACT_KEY]
    unknown = [name for name in rows.column_names if name not in known]
    missing = [name for name in table.key if name not in rows.column_names]
    if unknown or missing:
        found = f"unknown columns {', '.join(unknown)}" if unknown else f"no columns {', '.join(missing)}"
        raise CltdbError(
            str(part.path),
            found=found,
            expected=f"columns of {part.table}: {', '.join(known)}",
            do=f"remove the artifact {part.path.parents[2]} and run again, or add the column with a migration",
        )


def _with_naive_times(rows):
    """The rows with times that have a zone turned to UTC without one, as the tables hold them."""
    import pyarrow as pa

    for i, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz:
            rows = rows.set_column(i, field.name, rows.column(i).cast(pa.timestamp(field.type.unit)))
    return rows


def loaded_parts(connection, key):
    """What is loaded of an artifact, as {part: (rows, complete)}."""
    found = connection.execute("SELECT part, rows, complete FROM loaded_parts WHERE artifact_key = ?", [key]).fetchall()
    return {part: (rows, complete) for part, rows, complete in found}
