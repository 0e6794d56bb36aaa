"""Neuronpedia's explanations: its export in batches (`{model}/{source}/explanations/batch-0.jsonl.gz`), or the answer of its address
`/api/explanation/export`, a JSON array.

A row has `modelId`, `layer` (a source, such as 5-gemmascope-transcoder-16k), `index`, `description` and `explanationModelName`. Other fields
are not read. Source: `utils/neuronpedia-utils/neuronpedia_utils/export-data.py` of Neuronpedia, which writes the batches.

Polars reads a few megabytes of lines at once. Where something may be wrong with them, they are read one by one, to say which line it is.
"""

import io

import polars as pl

from cltdb.errors import DataError, shown
from cltdb.explain.labels.rows import files_at, json_value, opened, raw, storable

PLACE, NAMES = "line", {"source": "layer", "feature": "index", "text": "description"}
FIELDS = dict.fromkeys(("modelId", "layer", "index", "description", "explanationModelName"), pl.String)
NEEDED, NUMBERS = ("layer", "index", "description"), ("layer", "index")
CHUNK_BYTES = 1 << 22
DOUBTFUL = r"^(?:[\[{]|[-+.0-9eE]+$|true$|false$)|\x00"
"""Polars gives values of every JSON type as text, and half of a surrogate pair as NUL; this is what these look like."""


def files(path):
    """Those in folders called `explanations`, where there are any: an export has batches of other things beside them."""
    found = files_at(path, ".jsonl", ".json")
    return [file for file in found if file.parent.name == "explanations"] or found


def frames(paths):
    """Frames of RAW. All rows must be of one model."""
    model = None
    for index, path in enumerate(paths):
        for frame in _frames(path):
            of_models = frame.drop_nulls("modelId")
            if model is None and of_models.height:
                model = of_models["modelId"][0]
            others = of_models.filter(pl.col("modelId").ne_missing(model))
            if others.height:
                raise DataError(
                    f"{path}, {PLACE} {others['number'][0]}",
                    found=f"modelId {shown(others['modelId'][0])} after {shown(model)}",
                    expected="explanations of one model",
                    do="name the file or folder of one model",
                )
            columns = {"source": "layer", "feature": "index", "text": "description", "model": "explanationModelName"}
            yield raw(frame, file=index, **{name: pl.col(field) for name, field in columns.items()})


def _frames(path):
    """Frames (number, FIELDS) of a file."""
    first = 1
    with opened(path, "JSON") as file:
        while chunk := file.read(CHUNK_BYTES):
            chunk += file.readline()
            if first == 1 and chunk.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                yield _checked(enumerate(json_value(chunk + file.read(), str(path), "a JSON array of objects"), start=1), path)
                return
            n_lines = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
            frame = _at_once(chunk, n_lines)
            if frame is None:
                yield _checked(_values(chunk, first, path), path)
            else:
                yield frame.with_row_index("number", offset=first)
            first += n_lines


def _at_once(chunk, n_lines):
    """FIELDS of all lines; None where Polars finds anything wrong, or takes a value for a text that may be none."""
    try:
        frame = pl.read_ndjson(io.BytesIO(chunk), schema=FIELDS)
    except pl.exceptions.PolarsError:
        return None
    return None if frame.height != n_lines or frame["description"].str.contains(DOUBTFUL).any() else frame


def _values(chunk, first, path):
    """(number, JSON value) of each line that is not empty."""
    for number, line in enumerate(chunk.removesuffix(b"\n").split(b"\n"), start=first):
        if line.strip():
            yield number, json_value(line, f"{path}, {PLACE} {number}", "one JSON object per line")


def _checked(numbered, path):
    """A frame (number, FIELDS) of (number, JSON value); DataError at the first that is no explanation."""
    rows = []
    for number, value in numbered:
        missing = [name for name in NEEDED if name not in value] if isinstance(value, dict) else list(NEEDED)
        if missing:
            has = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise _wrong(
                path,
                number,
                f"no field {missing[0]}, only {shown(has, quoted=False)}",
                "an object with layer, index, description",
            )
        for name in FIELDS:
            field = value.get(name)
            if not (field is None or isinstance(field, str) or name in NUMBERS and type(field) in (int, float)):
                raise _wrong(path, number, f"{name} {shown(field)}", "a text")
        rows.append((number, *(None if (field := value.get(name)) is None else storable(str(field)) for name in FIELDS)))
    return pl.DataFrame(rows, schema={"number": pl.Int64, **FIELDS}, orient="row")


def _wrong(path, number, found, expected):
    return DataError(f"{path}, {PLACE} {number}", found=found, expected=expected, do="name an export of explanations")
