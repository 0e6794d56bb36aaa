"""The rows of text files, on this machine or in object storage: .txt, .json, .jsonl, .csv, .tsv, .parquet and .arrow, also compressed.

A path is opened as it stands: only the patterns of a spec are globs. Values are what the file says, so that a text that looks like a date
stays a text. A file that cannot be read to its end is an error that names it; which single rows are of no use `texts` decides.
"""

import bz2
import contextlib
import csv
import glob
import gzip
import io
import itertools
import json
import lzma
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cltdb.activations.storage import is_uri, matching_uris, open_uri
from cltdb.errors import DataError

ROWS_PER_READ = 256
KINDS = {
    ".txt": "text",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
LONGEST_FIELD = (1 << 31) - 1  # the csv module's own limit is 128 kB
UNPACKED = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda file: io.BufferedReader(pa.CompressedInputStream(file, "zstd")),
    ".lz4": lambda file: io.BufferedReader(pa.CompressedInputStream(file, "lz4")),
}
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, csv.Error, pa.ArrowException, ValueError)
TEXT_IN = {"encoding": "utf-8-sig", "errors": "surrogateescape"}  # bytes that are no UTF-8 become lone surrogates of their row


class Columns(NamedTuple):
    """Names of the columns of text or tokens and of labels, dotted where nested."""

    value: str
    label: str | None = None

    def key(self, name):
        """The key of a spec that gave a name."""
        return "label_column" if name == self.label else "column"


def columns_of(source):
    """The `Columns` of a `TextSource`."""
    return Columns(source.tokens_column or source.column, source.label_column)


class Unusable(NamedTuple):
    """Stands for the value of a row that has none; reason: why."""

    reason: str


class Row(NamedTuple):
    """number: from 1, of .jsonl files that of the line; value and label as the file has them, None where it has none."""

    number: int
    value: Any
    label: Any = None


def matching_files(root, patterns):
    """Sorted paths of the files that match globs relative to `root`, and URIs of those in object storage. What names a file as it stands is
    that file, whatever brackets are in it."""
    remote = {uri for pattern in patterns if is_uri(pattern) for uri in matching_uris(pattern)}
    found = set()
    for pattern in patterns:
        if not is_uri(pattern):
            named = os.path.join(str(root), pattern)
            found |= {named} if os.path.isfile(named) else _matches(root, pattern)
    return sorted(path for path in found if os.path.isfile(path)) + sorted(remote)


def _matches(root, pattern):
    return set(glob.glob(os.path.join(glob.escape(str(root)), pattern), recursive=True))


def existing_files(root, source, *, where="activations.text"):
    """The files of a source, all of a type that can be read; DataError where one of its patterns matches none."""
    nothing = [pattern for pattern in source.files if not matching_files(root, [pattern])]
    if nothing:
        raise DataError(
            f"{where}.files",
            found=f"no file that matches {', '.join(nothing)}",
            expected=f"paths or globs relative to {root}, the folder of cltdb.yaml",
            do="mend the path",
        )
    paths = matching_files(root, source.files)
    for path in paths:
        file_kind(path)
    return paths


def file_kind(path):
    """(kind, suffix of its compression or "") of a file, by its name."""
    name = Path(path.rpartition("?")[0] or path).name if is_uri(path) else Path(path).name
    stem, compression = os.path.splitext(name.lower())
    suffix = os.path.splitext(stem)[1] if compression in UNPACKED else compression
    if suffix not in KINDS:
        raise DataError(
            str(path),
            found=f"a file of type {suffix or compression or 'none'}",
            expected=f"{', '.join(KINDS)}, also with {', '.join(UNPACKED)}",
            do="convert it or name other files",
        )
    return KINDS[suffix], compression if compression in UNPACKED else ""


def file_rows(path, columns, *, by_line=False):
    """The `Row`s of a file. by_line: of a .txt file its lines instead of the paragraphs between blank lines."""
    kind, compression = file_kind(path)
    if kind == "text" and columns.label:
        raise no_column(path, columns, columns.label, ["none: it is a .txt file"])
    try:
        with _opened(path, compression) as file:
            if kind == "text":
                yield from _lines(file) if by_line else _paragraphs(file)
            elif kind == "json":
                yield from _json_rows(file, columns, path)
            elif kind in DELIMITERS:
                yield from _csv_rows(file, columns, path, DELIMITERS[kind])
            else:
                seekable = pa.BufferReader(file.read()) if compression else file
                tables = _parquet_tables(seekable, columns) if kind == "parquet" else _arrow_tables(seekable)
                yield from _table_rows(tables, columns, path)
    except DAMAGE as error:
        raise DataError(
            str(path),
            found=f"a file that cannot be read ({str(error).split(chr(10))[0] or type(error).__name__})",
            expected=f"a whole {kind} file" if kind != "text" else "a UTF-8 text file",
            do="restore, download or convert it again, or name other files",
        ) from error


@contextlib.contextmanager
def _opened(path, compression):
    """The uncompressed bytes of a file."""
    with open_uri(path) if is_uri(path) else open(path, "rb") as file:
        if not compression:
            yield file
            return
        with UNPACKED[compression](file) as unpacked:
            yield unpacked


def _text(file, **options):
    reader = io.BufferedReader(file) if isinstance(file, pa.NativeFile) else file
    return io.TextIOWrapper(reader, **TEXT_IN, **options)


def _paragraphs(file):
    """The texts between blank lines, or the whole file where there is none."""
    lines = io.TextIOWrapper(io.BytesIO(file.read()), **TEXT_IN).read().splitlines(keepends=True)
    groups = itertools.groupby(lines, key=lambda line: bool(line.strip()))
    texts = ("".join(group).strip() for filled, group in groups if filled)
    yield from (Row(number, text) for number, text in enumerate(texts, start=1))


def _lines(file):
    for number, line in enumerate(_text(file), start=1):
        if line.strip():
            yield Row(number, line.rstrip("\n"))


# JSON and CSV


def _json_rows(file, columns, path):
    """Of one object per line, or of an array or single object over many lines."""
    lines = ((number, line) for number, line in enumerate(_text(file, newline="\n"), start=1) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    lines = itertools.chain([first], lines)
    if first[1].lstrip().startswith("[") or not _is_json(first[1]):
        whole = "".join(line for _, line in lines)
        values = _parsed(whole, path, first[0], rest="a JSON array of objects or one object per line")
        values = enumerate(values if isinstance(values, list) else [values], start=1)
    else:
        values = ((number, _parsed(line, path, number)) for number, line in lines)
    yield from _checked_columns(values, columns, path)


def _is_json(line):
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parsed(text, path, number, *, rest="one JSON object per line"):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        number += error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0
        raise DataError(
            f"{path}, row {number}",
            found=f"no JSON ({str(error).split(chr(10))[0]})",
            expected=rest,
            do="mend the file, or restore it: it may be cut short",
        ) from error


def _checked_columns(values, columns, path):
    """The `Row`s of (number, JSON value); DataError where no object of the file, or of its first ROWS_PER_READ, has a column."""
    wanted, known, held = {name for name in columns if name is not None}, {}, []
    for number, value in values:
        if not isinstance(value, dict):
            held.append(Row(number, None if value is None else Unusable("no JSON object")))
        else:
            found = {name: _at(value, name) for name in columns if name is not None}
            held.append(Row(number, *(None if name is None else found[name][1] for name in columns)))
            if wanted:
                wanted -= {name for name, (there, _) in found.items() if there}
                known |= dict.fromkeys(value)
        if not wanted:
            yield from held
            held = []
        elif len(held) >= ROWS_PER_READ:
            break
    if wanted and known:
        raise no_column(path, columns, sorted(wanted)[0], known)
    yield from held


def _at(row, name):
    """(whether an object has a column, its value)."""
    if name in row:
        return True, row[name]
    for part in name.split("."):
        if not isinstance(row, dict) or part not in row:
            return False, None
        row = row[part]
    return True, row


def _csv_rows(file, columns, path, delimiter):
    csv.field_size_limit(LONGEST_FIELD)
    records = csv.reader(_text(file, newline=""), delimiter=delimiter, strict=True)
    header = next(records, None)
    if header is None:
        return
    for name in columns:
        if name is not None and name not in header:
            raise no_column(path, columns, name, header)
    places = [header.index(name) if name is not None else None for name in columns]
    for number, record in enumerate((record for record in records if record), start=1):
        yield Row(number, *(record[place] if place is not None and place < len(record) else None for place in places))


# Arrow


def _parquet_tables(file, columns):
    with pq.ParquetFile(file) as parquet:
        names = parquet.schema_arrow.names
        wanted = {name if name in names else name.split(".")[0] for name in columns if name is not None}
        for batch in parquet.iter_batches(batch_size=ROWS_PER_READ, columns=sorted(wanted) if wanted <= set(names) else None):
            yield pa.Table.from_batches([batch])


def _arrow_tables(file):
    """Of Arrow's stream format, which datasets writes, or its file format."""
    source = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file)
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    if is_file:
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        batches = pa.ipc.open_stream(source)
    yield from (pa.Table.from_batches([batch]) for batch in batches)


def _table_rows(tables, columns, path):
    number = 0
    for table in tables:
        if table.num_rows:
            for value, label in zip(*table_values(table, columns, path), strict=True):
                number += 1
                yield Row(number, value, label)


def table_values(table, columns, path):
    """(values, labels) of the columns of a pyarrow table, as lists."""
    return tuple(
        [None] * table.num_rows if name is None else _python_values(_table_column(table, columns, name, path)) for name in columns
    )


def _table_column(table, columns, name, path):
    """A column by its dotted name."""
    import pyarrow.compute as pc

    if name in table.column_names:
        return table.column(name)
    top, *parts = name.split(".")
    column = table.column(top) if top in table.column_names else None
    for part in parts if column is not None else []:
        fields = [field.name for field in column.type] if pa.types.is_struct(column.type) else []
        if part not in fields:
            raise no_column(path, columns, name, [f"{top}.{field}" for field in fields] or table.column_names)
        column, top = pc.struct_field(column, part), f"{top}.{part}"
    if column is None:
        raise no_column(path, columns, name, table.column_names)
    return column


def _python_values(column):
    """Values of a pyarrow column; bytes of a text that are no UTF-8 become lone surrogates."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in values]


def no_column(path, columns, name, known):
    """The error that a file or dataset has no such column."""
    return DataError(
        f"activations.text.{columns.key(name)} of {path}",
        found=repr(name),
        expected="one of " + ", ".join(map(str, itertools.islice(known, 50))),
        do="name a column of the data",
    )
