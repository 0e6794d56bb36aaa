"""Tables of labels that anyone can write: .csv, .tsv, .parquet with the columns `layer`, `feature`, `text` and, where wanted, `side` (input or
output), `explainer`, `model`. Other columns are not read. Text files are UTF-8, also compressed."""

import csv
import io
from functools import partial

import polars as pl
import pyarrow.parquet as pq

from cltdb.activations.text_files import DELIMITERS, LONGEST_FIELD
from cltdb.errors import DataError, nearest, shown
from cltdb.explain.labels.rows import files_at, opened, raw

PLACE, NAMES = "row", {"source": "layer", "feature": "feature", "text": "text"}
NEEDED, OPTIONAL = ("layer", "feature", "text"), ("side", "explainer", "model")


def files(path):
    return files_at(path, ".csv", ".tsv", ".parquet")


def frames(paths):
    """Frames of RAW."""
    for index, path in enumerate(paths):
        read = _parquet if ".parquet" in path.name.lower() else _csv
        yield raw(read(path), file=index, source=pl.col("layer"))


def _columns(names, path):
    """Those to read; DataError where one is missing."""
    for name in NEEDED:
        if name not in names:
            do = nearest(name, list(names), otherwise=f"call the columns {', '.join(NEEDED)}")
            raise DataError(
                str(path), found=f"the columns {shown(', '.join(names), quoted=False)}", expected=f"a column {name}", do=do
            )
    return [name for name in (*NEEDED, *OPTIONAL) if name in names]


def _parquet(path):
    with opened(path, "Parquet") as file, pq.ParquetFile(file) as parquet:
        table = parquet.read(columns=_columns(parquet.schema_arrow.names, path))
        return pl.from_arrow(table).cast(pl.String).with_row_index("number", offset=1)


def _csv(path):
    kind = "tsv" if ".tsv" in path.name.lower() else "csv"
    with opened(path, kind) as file:
        content = file.read()
    read = partial(pl.read_csv, io.BytesIO(content), infer_schema=False, separator=DELIMITERS[kind])
    try:
        frame = read(columns=_columns(read(n_rows=0).columns, path))
    except pl.exceptions.PolarsError as error:
        raise _fault(content, path, DELIMITERS[kind], str(error).split("\n")[0]) from error
    return frame.with_row_index("number", offset=1).filter(~pl.all_horizontal(pl.exclude("number").is_null()))  # no empty lines


def _fault(content, path, delimiter, found):
    """The DataError of the first line that is wrong; found: what Polars says."""
    line = None
    try:
        csv.field_size_limit(LONGEST_FIELD)
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
        width = len(next(rows, ()))
        for row in rows:
            if len(row) > width:
                line, found = rows.line_num, f"{len(row)} fields where the header has {width}"
                break
    except UnicodeDecodeError as error:
        line, found = content[: error.start].count(b"\n") + 1, "bytes that are no UTF-8"
    except csv.Error as error:
        line, found = rows.line_num, str(error)
    return DataError(
        f"{path}, line {line}" if line else str(path),
        found=found,
        expected="rows with as many fields as the header, in UTF-8; texts with a separator or a line break in double quotes",
        do="mend the line",
    )
