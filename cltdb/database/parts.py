"""Parquet files of an artifact into their tables: read in chunks, each inserted with its records in one transaction.

Reads: `<artifact>/tables/<table>/<part>.parquet`. Writes: the rows, and `loaded_parts`. Columns are matched by name.
"""

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cltdb.database.derived import mark
from cltdb.database.literals import quoted
from cltdb.database.store import now, transaction
from cltdb.database.tables import EARLIER_NAMES, LATER_KEYS, MADE_COLUMNS, loaded_tables
from cltdb.engine.integrity import MANIFEST, checked, read_manifest, remedy
from cltdb.errors import CltdbError

CHUNK_BYTES = 32_000_000
"""Size in memory of the rows that one transaction inserts, at most: some 0.4 CPU seconds."""
ROW_GROUPS = (122_880, 61_440, 30_720)
"""Rows of a row group of DuckDB in a large load: the largest that is no more than a chunk. A chunk is whole ones, which are written once; others
go through the log too. Smaller ones of all tables make a load dearer by a tenth, and the file by 3 %."""
MOST_GROUPS = 3


class Part(NamedTuple):
    """One Parquet file of an artifact."""

    table: str
    path: Path

    @property
    def name(self):
        return f"{self.table}/{self.path.stem}"


class Piece(NamedTuple):
    """Consecutive rows of a part."""

    part: Part
    first_row: int
    n_rows: int
    is_last: bool


class Loaded(NamedTuple):
    """What a database has of a part: table loaded_parts."""

    rows: int = 0
    complete: bool = False
    superseded: bool = False


class Chunk(NamedTuple):
    """Rows that one transaction inserts: a piece of a part, or several small parts of one table."""

    rows: object  # pyarrow.Table
    pieces: tuple[Piece, ...]
    row_group: int
    """Rows of a row group, where it is part of a large load."""

    @property
    def table(self):
        return self.pieces[0].part.table

    def one_by_one(self):
        """Its pieces, each a chunk."""
        first = 0
        for piece in self.pieces:
            yield Chunk(self.rows.slice(first, piece.n_rows), (piece,), self.row_group)
            first += piece.n_rows


def artifact_parts(directory):
    """The parts of an artifact in the order they are loaded: a table after those it refers to. A file of a table that does not exist is
    an error."""
    order = list(loaded_tables())
    parts = [
        Part(EARLIER_NAMES.get(path.parent.name, path.parent.name), path)
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
    """When the artifact was made, or asked for again (`Workspace.ask_again`), as sortable text; empty without a manifest."""
    manifest = read_manifest(directory) if (Path(directory) / MANIFEST).is_file() else {}
    at = timestamp(manifest.get("asked_at") or manifest.get("started_at"))
    return at.isoformat(timespec="microseconds") if at else ""


def timestamp(value):
    """A datetime or ISO 8601 text as UTC without a zone; None stays None."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.astimezone(UTC).replace(tzinfo=None) if value is not None and value.tzinfo else value


# Reading parts


def read_chunks(parts):
    """The chunks of an artifact's parts, [(part, rows that are loaded already)]; a part of which only the record is missing gives an
    empty piece. Small parts of one table that follow each other come together."""
    pending = _Pending()
    try:
        for part, done_rows in parts:
            for piece, rows in _pieces_of(part, done_rows=done_rows):
                yield from pending.take(piece, rows)
    except CltdbError:  # a file that cannot be read; those before it can be loaded
        yield from pending.give()
        raise
    yield from pending.give()


class _Pending:
    """Pieces that wait for others with which they make a chunk."""

    def __init__(self):
        self._clear()

    def _clear(self):
        self.pieces, self.tables, self.n_rows, self.n_bytes = [], [], 0, 0

    def take(self, piece, rows):
        """Adds a piece; yields the chunks that are whole now."""
        while piece:
            if self.pieces and not self._are_alike(piece, rows):
                yield from self.give()
            if not self.pieces:
                self.n_most, self.row_group = _rows_at_once(rows)
            first, rest = _cut(piece, self.n_most - self.n_rows)
            of_first = rows.slice(0, first.n_rows)
            n_bytes = of_first.nbytes
            if self.pieces and self.n_bytes + n_bytes > 2 * CHUNK_BYTES:  # wider than those before
                yield from self.give()
                continue
            self._add(first, of_first, n_bytes)
            piece, rows = rest, rows.slice(first.n_rows)
            if self.n_rows >= self.n_most:
                yield from self.give()

    def give(self):
        """Yields what waits as a chunk, where something does."""
        import pyarrow as pa

        if self.pieces:
            chunk = Chunk(pa.concat_tables(self.tables), tuple(self.pieces), self.row_group)
            self._clear()
            yield chunk

    def _are_alike(self, piece, rows):
        """True where the rows of a piece may be inserted together with those that wait."""
        return piece.part.table == self.pieces[0].part.table and rows.schema.equals(self.tables[0].schema)

    def _add(self, piece, rows, n_bytes):
        if self.pieces and self.pieces[-1].part == piece.part:
            before = self.pieces.pop()
            piece = piece._replace(first_row=before.first_row, n_rows=before.n_rows + piece.n_rows)
        self.pieces.append(piece)
        self.tables.append(rows)
        self.n_rows, self.n_bytes = self.n_rows + len(rows), self.n_bytes + n_bytes


def _rows_at_once(rows):
    """(how many rows like these make up about CHUNK_BYTES, whole row groups where they make one; rows of a row group)."""
    if not len(rows):
        return ROW_GROUPS[0], ROW_GROUPS[0]
    n_rows = int(CHUNK_BYTES * len(rows) / max(rows.nbytes, 1))
    for group in ROW_GROUPS:
        if n_rows >= group:
            return min(MOST_GROUPS, n_rows // group) * group, group
    return max(1000, n_rows), ROW_GROUPS[-1]


def _cut(piece, n):
    """The first n rows of a piece, and the others; None where there are none."""
    if piece.n_rows <= n:
        return piece, None
    first = piece._replace(n_rows=n, is_last=False)
    return first, piece._replace(first_row=piece.first_row + n, n_rows=piece.n_rows - n)


def _pieces_of(part, *, done_rows):
    """The pieces of one part after its first `done_rows` rows as they are read, each with its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(checked(part.path), page_checksum_verification=True) as file:
            n_rows, first_row = file.metadata.num_rows, 0
            if done_rows >= n_rows:
                rows = _todays_form(part, file.schema_arrow.empty_table())
                yield Piece(part, n_rows, 0, is_last=True), rows
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
                end = first_row + batch.num_rows
                if end > done_rows:
                    skip = max(0, done_rows - first_row)
                    rows = _todays_form(part, pa.Table.from_batches([batch.slice(skip)]))
                    yield Piece(part, first_row + skip, len(rows), is_last=end == n_rows), rows
                first_row = end
    except (pa.ArrowException, OSError) as error:
        raise CltdbError(
            str(part.path),
            found=f"a file that is no whole Parquet file ({error})",
            expected="Parquet as a stage wrote it",
            do=remedy(part.path.parents[2]),
        ) from error


def _todays_form(part, rows):
    """The rows as the table holds them today, times with a zone turned to UTC without one."""
    written_as = part.path.parent.name
    if written_as != part.table:
        from cltdb.database.earlier import FORMS

        rows = FORMS[written_as](rows)
    return _with_naive_times(rows)


def _batch_rows(metadata):
    """Rows of a file that are read at once: a row group, or fewer that make up about CHUNK_BYTES."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return min(ROW_GROUPS[0], max(1000, int(CHUNK_BYTES * metadata.num_rows / max(size, 1))))


# Inserting chunks


def load_chunk(connection, chunk, *, key, made_at):
    """Inserts a chunk with its records in one transaction; returns its rows, without those where another process was faster."""
    import duckdb

    [progress] = loaded_parts(connection, key)
    done = [progress.get(piece.part.name, Loaded()) for piece in chunk.pieces]
    if len(done) > 1 and any(one.complete or one.rows != piece.first_row for one, piece in zip(done, chunk.pieces, strict=True)):
        return sum(load_chunk(connection, one, key=key, made_at=made_at) for one in chunk.one_by_one())
    piece = chunk.pieces[0]
    if done[0].complete or done[0].rows > piece.first_row:
        return 0
    if done[0].rows < piece.first_row:
        raise CltdbError(
            str(piece.part.path),
            found="a part that was taken out of the database while it was loaded",
            expected="one process at a time that loads or unloads an artifact",
            do="run again",
        )
    try:
        with _incoming(connection, chunk.rows), transaction(connection):
            _insert_chunk(connection, chunk, progress, key=key, made_at=made_at)
    except (
        duckdb.ConversionException,
        duckdb.ConstraintException,
        duckdb.BinderException,
        duckdb.TypeMismatchException,
    ) as error:
        if len(chunk.pieces) > 1:  # which of them it is shows when they come alone
            return sum(load_chunk(connection, one, key=key, made_at=made_at) for one in chunk.one_by_one())
        raise CltdbError(
            str(piece.part.path),
            found=f"rows that do not fit the table {chunk.table} ({error})",
            expected="the table's columns and types",
            do=f"remove the artifact {piece.part.path.parents[2]} and run again",
        ) from error
    return len(chunk.rows)


def _insert_chunk(connection, chunk, progress, *, key, made_at):
    """progress: what is loaded of the artifact's parts."""
    made = _made(connection, chunk.table, key)
    if key not in made or made[key] < made_at:
        made[key] = made_at
        connection.execute("INSERT OR REPLACE INTO loaded_artifacts VALUES (?, ?)", [key, made_at])
    of_table = [loaded for name, loaded in progress.items() if name.startswith(f"{chunk.table}/")]
    superseded = _insert_rows(connection, chunk, *_before_and_after(made, key), key=key)
    superseded |= any(loaded.superseded for loaded in of_table)
    replace = "OR REPLACE " if any(piece.part.name in progress for piece in chunk.pieces) else ""  # which takes longer
    connection.execute(
        f"INSERT {replace}INTO loaded_parts SELECT $key, unnest($parts), unnest($rows), $now, unnest($complete), $superseded",
        {
            "key": key,
            "parts": [piece.part.name for piece in chunk.pieces],
            "rows": [piece.first_row + piece.n_rows for piece in chunk.pieces],
            "now": now(),
            "complete": [piece.is_last for piece in chunk.pieces],
            "superseded": superseded,
        },
    )
    if superseded and not all(loaded.superseded for loaded in of_table):  # so that the order of loading makes no difference
        connection.execute(
            "UPDATE loaded_parts SET superseded = true WHERE artifact_key = ? AND starts_with(part, ?)", [key, f"{chunk.table}/"]
        )


@contextmanager
def _incoming(connection, rows):
    """The rows as the table `incoming` of the connection."""
    connection.register("incoming", rows)
    try:
        yield
    finally:
        connection.unregister("incoming")


def _insert_rows(connection, chunk, earlier, later, *, key):
    """Inserts the rows of `incoming`, less the groups of which one of the artifacts `later` has rows; returns whether there were such groups.

    Rows that the artifacts `earlier` have of the same groups are removed first (`Table.replaced_together`).
    """
    table, rows = chunk.table, chunk.rows
    _require_columns(chunk)
    given, made = [f'"{name}"' for name in rows.column_names], MADE_COLUMNS.get(table, {})
    names, values = ", ".join([*given, *made]), ", ".join([*given, *made.values()])
    lacking = [one for one in loaded_tables()[table].artifact_columns if made and one.name not in rows.column_names]
    source = f"(SELECT *{''.join(f', NULL::{one.type} AS {one.name}' for one in lacking)} FROM incoming)"
    columns = loaded_tables()[table].replaced_together
    group, near = ", ".join(columns), _near(connection, columns[0]) if earlier or later else ""
    if earlier:
        _remove_earlier(connection, table, earlier, group, near)
    there = f"SELECT DISTINCT {group} FROM {table} WHERE {near} AND list_contains($later, artifact_key)"
    held = f"ANTI JOIN ({there}) USING ({group})" if later else ""
    inserted = connection.execute(
        f"INSERT INTO {table} ({names}, artifact_key) SELECT {values}, $key FROM {source} {held}",
        {"key": key, "later": later} if later else {"key": key},
    ).fetchone()[0]
    mark(connection, table, "FROM incoming")
    return inserted < rows.num_rows


def _near(connection, column):
    """SQL that is true of rows whose `column` is between those in `incoming`: DuckDB passes over row groups that have none."""
    least, most = connection.execute(f"SELECT min({column}), max({column}) FROM incoming").fetchone()
    return f"{column} BETWEEN {quoted(least)} AND {quoted(most)}"


def _remove_earlier(connection, table, earlier, group, near):
    """Removes the rows that the artifacts `earlier` have of the groups in `incoming`. near: SQL that is true of these groups."""
    connection.execute("SET VARIABLE earlier = ?::VARCHAR[]", [earlier])
    doomed = (
        f"FROM {table} WHERE {near} AND list_contains(getvariable('earlier'), artifact_key)"
        f" AND ({group}) IN (SELECT DISTINCT ({group}) FROM incoming)"
    )
    replaced = [key for (key,) in connection.execute(f"SELECT DISTINCT artifact_key {doomed}").fetchall()]
    if replaced:
        mark(connection, table, doomed)
        connection.execute(
            "UPDATE loaded_parts SET superseded = true WHERE list_contains(?, artifact_key) AND starts_with(part, ?)",
            [replaced, f"{table}/"],
        )
        connection.execute(f"DELETE {doomed}")


def other_artifacts(connection, table, key):
    """Keys of the artifacts with rows in `table` that were finished before, and after, artifact `key`."""
    return _before_and_after(_made(connection, table, key), key)


def _made(connection, table, key):
    """{artifact key: when it was made} of artifact `key` and of those with rows in `table`."""
    found = connection.execute(
        "SELECT made_at, artifact_key FROM loaded_artifacts"
        " WHERE artifact_key = $key OR artifact_key IN (SELECT artifact_key FROM loaded_parts WHERE starts_with(part, $prefix))",
        {"key": key, "prefix": f"{table}/"},
    ).fetchall()
    return {key: made_at for made_at, key in found}


def _before_and_after(made, key):
    """The other keys of `made`, {artifact key: when it was made}, that were made before artifact `key`, and after it."""
    own = (made.get(key, ""), key)  # which a damaged database may lack
    others = sorted((at, other) for other, at in made.items() if other != key)
    return [other for at, other in others if (at, other) < own], [other for at, other in others if (at, other) > own]


def _require_columns(chunk):
    part, rows, table = chunk.pieces[0].part, chunk.rows, loaded_tables()[chunk.table]
    known = [column.name for column in table.artifact_columns]
    unknown = [name for name in rows.column_names if name not in known]
    missing = [name for name in table.key if name not in (*rows.column_names, *LATER_KEYS.get(chunk.table, ()))]
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


def loaded_parts(connection, *keys):
    """What is loaded of each of these artifacts, as a list of {part: Loaded}."""
    found = {key: {} for key in keys}
    for key, part, *loaded in connection.execute(
        "SELECT artifact_key, part, rows, complete, superseded FROM loaded_parts WHERE list_contains(?, artifact_key)", [keys]
    ).fetchall():
        found[key][part] = Loaded(*loaded)
    return [found[key] for key in keys]
