"""The rows of files of labels as every format gives them, the file and line that an error names, and what a folder holds."""

import contextlib
import json
import re
from pathlib import Path

import polars as pl

from cltdb.activations.text_files import DAMAGE, UNPACKED
from cltdb.errors import DataError

RAW = {
    "file": pl.Int32,
    "number": pl.Int64,
    "source": pl.String,
    "feature": pl.String,
    "side": pl.String,
    "text": pl.String,
    "explainer": pl.String,
    "model": pl.String,
}
"""file: index in the list of paths; number: of the row in its file; source: what says the layer. All texts as the file has them."""


def raw(frame, **columns):
    """A frame with the columns of RAW: those that `frame` has, `columns` of expressions or values, and NULL for the rest."""
    given = {name: value if isinstance(value, pl.Expr) else pl.lit(value) for name, value in columns.items()}
    given |= {name: pl.col(name) for name in RAW if name in frame.columns and name not in given}
    return frame.select((given.get(name, pl.lit(None))).cast(kind).alias(name) for name, kind in RAW.items())


def files_at(path, *endings):
    """A file; or all files in a folder with one of these endings, which may also be compressed."""
    if path.is_file():
        return [path]
    wanted = tuple(ending + packed for ending in endings for packed in ("", *UNPACKED))
    return in_order(other for other in path.rglob("*") if other.is_file() and other.name.lower().endswith(wanted))


def in_order(paths):
    """Paths by name, with numbers in names as numbers: batch-2 before batch-10."""
    return sorted(paths, key=lambda path: [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", str(path))])


@contextlib.contextmanager
def reading(path, what):
    """Whatever is wrong with the file itself becomes one DataError. what: the kind of file that is expected."""
    try:
        yield
    except (*DAMAGE, pl.exceptions.PolarsError) as error:
        raise DataError(
            str(path),
            found=f"a file that cannot be read ({str(error).split(chr(10))[0] or type(error).__name__})",
            expected=f"a whole {what} file",
            do="download it or write it again",
        ) from error


@contextlib.contextmanager
def opened(path, what):
    """The uncompressed bytes of a file."""
    with reading(path, what), open(path, "rb") as file:
        compression = Path(path).suffix.lower()
        if compression not in UNPACKED:
            yield file
            return
        with UNPACKED[compression](file) as unpacked:
            yield unpacked


def json_value(content, where, expected):
    """The value in bytes of JSON; DataError names `where`."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        found = (
            "bytes that are no UTF-8" if isinstance(error, UnicodeDecodeError) else f"no JSON ({str(error).split(chr(10))[0]})"
        )
        raise DataError(where, found=found, expected=expected, do="download it again: it may be cut short") from error


def storable(text):
    """A text without halves of surrogate pairs, which no UTF-8 has."""
    return text.encode(errors="replace").decode()
