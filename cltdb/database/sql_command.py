"""What `cltdb sql` does: one read-only statement, printed as a table, csv or json, or written as Parquet."""

import csv
import itertools
import logging
import os
import stat
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from cltdb.database import named_queries
from cltdb.database.named_queries import NamedQuery, default_text, described, named_query, named_query_params
from cltdb.database.nothing_found import why_no_rows
from cltdb.database.query import ask, rows_or_reader, spooled
from cltdb.engine.workspace import ELSEWHERE, writing
from cltdb.errors import CltdbError, escaped
from cltdb.output import json_text, plain, unique_names

__all__ = ["FORMATS", "described", "list_queries", "named_query", "run_query"]

logger = logging.getLogger(__name__)
FORMATS = ("table", "csv", "json", "parquet")
LIMITS = {"timestamp[ns]": 2**63 - 1, "time64[us]": 86_400_000_000}
"""Of Arrow's types the numbers that stand for infinity and for 24:00, of which Python makes another time without a word."""
CELL_WIDTH = 60
"""Characters of a table cell shown on a terminal."""


def run_query(path, query, *, params=None, format=None, output=None, timeout_s=None, connection=None):
    """Asks one statement (text or a `NamedQuery`) and writes its rows to `output` (a path, None for stdout).

    `format`: table, csv, json or parquet (needs `output`); None means table on a terminal, csv in a pipe or file.
    CSV: a header, NULL empty, lists and structs as JSON. JSON: an array of objects, NaN and infinite numbers as null. Of columns
    with one name the later ones are numbered. The database is free again before anything is printed, so a pager keeps nobody
    waiting. `timeout_s` ends a query that takes longer; `connection`: an open one to ask.
    """
    format = format or _usual_format(output)
    if format not in FORMATS:
        raise CltdbError("sql --format", found=repr(format), expected=f"one of {', '.join(FORMATS)}", do="choose one")
    named = query if isinstance(query, NamedQuery) else None
    if named:
        query, params = named.sql, named_query_params(named, params or {}, path)
    if format == "parquet":
        _write_parquet(output, ask(path, query, params, timeout_s=timeout_s, connection=connection))
        return
    asked = ask(path, query, params, timeout_s=timeout_s, connection=connection, answered=rows_or_reader)
    with _rows(asked) as (names, rows):
        rows = list(itertools.islice(rows, 1)), rows
        empty, rows = not rows[0], itertools.chain(*rows)
        if output is None:
            _WRITERS[format](sys.stdout, names, rows)
            sys.stdout.flush()
        else:
            with _target(output) as aside, open(aside, "w", encoding="utf-8", newline="") as stream:
                _WRITERS[format](stream, names, rows)
    if named and empty:
        logger.warning("query %s: %s", named.name, why_no_rows(path, named, params, connection))


def print_rows(names, rows):
    """Prints rows of Python values as a table on a terminal, as CSV elsewhere."""
    _WRITERS[_usual_format()](sys.stdout, names, rows)
    sys.stdout.flush()


def _usual_format(output=None):
    return "table" if output is None and sys.stdout.isatty() else "csv"


@contextmanager
def _target(output):
    """A path to write to that becomes `output`; a device or a pipe is written to as it is."""
    path = Path(output)
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        yield path
        return
    with writing(path.resolve(), do=ELSEWHERE) as aside:  # a link stays a link
        yield aside


def list_queries():
    """(name, what it asks with its grain and parameters) of every named query."""
    return [(query.name, _about(query)) for query in named_queries.list_queries()]


def _about(query):
    parameters = [name if one.required else f"{name}={default_text(one)}" for name, one in query.parameters.items()]
    return " ".join(
        [query.title, f"{query.grain[0].upper()}{query.grain[1:]}", *([f"-p {', '.join(parameters)}"] if parameters else [])]
    )


def _write_parquet(output, answer):
    """answer: what `ask` gives."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if output is None:
        raise CltdbError("sql --format parquet", found="no output file", expected="-o FILE", do="add `-o rows.parquet`")
    with answer as reader, _target(output) as aside:
        schema = reader.schema
        schema = pa.schema([field.with_name(name) for field, name in zip(schema, unique_names(schema.names), strict=True)])
        try:
            with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
                for batch in reader:
                    writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
        except pa.ArrowNotImplementedError as error:
            raise CltdbError(
                "sql --format parquet",
                found=f"a column that Parquet cannot hold ({error})",
                expected="plain types",
                do="cast it, for example `::VARCHAR`",
            ) from error


@contextmanager
def _rows(answer):
    """Column names and an iterator of rows as Python values, many of them spooled to a temporary file. answer: what `ask` gives of
    `rows_or_reader`."""
    with ExitStack() as stack:
        with answer as found:
            if is_few := isinstance(found, tuple):
                names, rows = found
            else:
                names = found.schema.names
                spool = os.path.join(stack.enter_context(tempfile.TemporaryDirectory(prefix="cltdb-")), "rows.arrow")
                _write_arrow(spool, found)
        yield unique_names(names), iter(rows) if is_few else stack.enter_context(_read_arrow(spool))


def _write_arrow(path, reader):
    import pyarrow as pa

    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
        for batch in spooled(reader, path):
            writer.write_batch(batch)


@contextmanager
def _read_arrow(path):
    """An iterator of the rows in a file, as Python values."""
    import pyarrow as pa

    with pa.OSFile(path) as source, pa.ipc.open_file(source) as file:
        batches = (file.get_batch(i) for i in range(file.num_record_batches))
        yield (row for batch in batches for row in zip(*map(_values, batch.columns), strict=True))


def _values(column):
    """The Python values of an Arrow column. Infinite dates and times, and those that Python lacks, are texts such as `infinity`."""
    import pyarrow.compute as pc

    limit = LIMITS.get(str(column.type))
    if limit is None or not pc.any(pc.equal(pc.abs(column.view("int64")), limit)).as_py():
        with suppress(OverflowError):
            return column.to_pylist()
    return [_value(scalar, limit) for scalar in column]


def _value(scalar, limit=None):
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if pa.types.is_nested(scalar.type):
        if pa.types.is_struct(scalar.type):
            return {name: _value(part) for name, part in scalar.items()}
        if pa.types.is_union(scalar.type):
            return _value(scalar.value)
        items = scalar.values  # of a list, an array or a map, whose items are pairs
        pairs = zip(items.field(0), items.field(1), strict=True) if pa.types.is_map(scalar.type) else None
        return [_value(item) for item in items] if pairs is None else [(_value(key), _value(item)) for key, item in pairs]
    if limit is None or abs(scalar.value) != limit:
        with suppress(OverflowError):
            return scalar.as_py()
    return _text_of(scalar)


@lru_cache(maxsize=10_000)
def _text_of(scalar):
    """A date or time as DuckDB writes it."""
    import duckdb
    import pyarrow as pa

    return duckdb.from_arrow(pa.table({"value": pa.array([scalar])})).project("value::VARCHAR").fetchall()[0][0]


def cell_text(value):
    """The value as a CSV cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    simple = plain(value)
    return json_text(simple) if isinstance(simple, (dict, list)) else str(simple)


def _write_csv(stream, names, rows):
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(map(cell_text, row) for row in rows)


def _write_json(stream, names, rows):
    stream.write("[")
    for i, row in enumerate(rows):
        stream.write(",\n " if i else "\n ")
        stream.write(json_text(dict(zip(names, row, strict=True))))
    stream.write("\n]\n")


def _write_table(stream, names, rows):
    cells = [[_cell(value) for value in row] for row in rows]
    header = [_cell(name) for name in names]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for line in (header, ["─" * width for width in widths], *cells):
        stream.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")
    stream.write(f"({len(cells)} row{'' if len(cells) == 1 else 's'})\n")


def _cell(value):
    """The value as a table cell: one line, nothing that moves the terminal's cursor, numbers rounded to 6 digits."""
    text = escaped("NULL" if value is None else f"{value:.6g}" if isinstance(value, float) else cell_text(value))
    return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"


_WRITERS = {"table": _write_table, "csv": _write_csv, "json": _write_json}
