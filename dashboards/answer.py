"""Answers one question to a database: `python -m dashboards.answer`, the question as a line of JSON on stdin, the answer as JSON on stdout.

Only a process can be ended whatever it does: some functions of DuckDB do not hear an interrupt, and what is made of its rows does not
count as its memory. `questions.py` starts it before there is a question, since the imports take longer than most answers.
"""

import json
import math
import re
import resource
import select
import signal
import sys

from cltdb.database.display.words import visible
from cltdb.database.folder import reading
from cltdb.database.query import ask
from cltdb.database.sql_command import cell_text, run_query, unique_names
from cltdb.database.store import reader_config
from cltdb.engine.workspace import is_full_disk
from cltdb.errors import CltdbError

MAX_ROWS, MAX_CELL_CHARS, MAX_CHARS = 2_000, 2_000, 10_000_000
"""Rows that a page shows, characters of a cell, characters of all cells: a page of many wide columns would stop the browser."""
MAX_FILE_BYTES = 1_000_000_000
SPARE_BYTES = 1_500_000_000
"""What a process may take beside DuckDB's own limit: imports, rows on their way."""
BUSY_S, GRACE_S = 20, 1.5
"""So long a question waits for a writer; so long after its time a query that does not hear of it is killed."""
IDLE_S = 600
EXACT = 2**53
"""Whole numbers beyond this are not what a browser shows of them."""
UNITS = {"MB": 1e6, "GB": 1e9, "TB": 1e12}


def main():
    """Waits for the question and prints what comes of it."""
    import duckdb  # noqa: F401 (so that the question need not wait for it)
    import pyarrow.parquet  # noqa: F401

    if not select.select([sys.stdin], [], [], IDLE_S)[0] or not (line := sys.stdin.readline()):
        return
    question = json.loads(line)
    try:
        with reading(question["database"], timeout_s=BUSY_S) as connection:
            _limit(**question)
            found = answered(connection, **question)
    except CltdbError as error:
        found = {"error": {"where": error.where, "found": error.found, "expected": error.expected, "do": error.do}}
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:  # Python has no such value: a date after year 9999
        do = "cast the column, for example with ::VARCHAR"
        found = {
            "error": {"where": "sql", "found": f"a value that cannot be shown ({error})", "expected": "plain ones", "do": do}
        }
    sys.stdout.write(json.dumps(found))


def _limit(*, database, timeout_s, format, **_):
    """Has the system end this process where it takes more time or memory than it may, and files that grow too large."""
    number, unit = re.fullmatch(r"([\d.]+) ?(..)", reader_config(database)["memory_limit"]).groups()
    memory = int(float(number) * UNITS[unit] + SPARE_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if format != "rows":
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    signal.setitimer(signal.ITIMER_REAL, timeout_s + GRACE_S)


def answered(connection, *, database, sql, params, timeout_s, format="rows", output=None):
    """{"columns", "rows", "more"} of the first rows, or with format csv or parquet {} once they all are in the file `output`."""
    asked = {"params": params, "timeout_s": timeout_s, "connection": connection}
    if format == "rows":
        with ask(database, sql, **asked, batch_rows=MAX_ROWS + 1) as reader:
            return _first_rows(reader)
    try:
        run_query(database, sql, **asked, format=format, output=output)
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise CltdbError(
            "download",
            found=f"a result that does not fit (limit {MAX_FILE_BYTES / 1e9:g} GB)",
            expected="a smaller one, and room for it",
            do="restrict it, or write it with `cltdb sql --format parquet -o FILE`",
        ) from error
    return {}


def _first_rows(reader):
    """What the page shows of a result: names, types, and at most MAX_ROWS rows of cells."""
    rows, more = [], False
    for batch in reader:
        rows += zip(*(column.to_pylist() for column in batch.columns), strict=True)
        if more := len(rows) > MAX_ROWS:
            break
    columns = [
        {"name": name, "type": str(field.type), "number": _is_number(field.type)}
        for name, field in zip(unique_names(reader.schema.names), reader.schema, strict=True)
    ]
    shown, room = [], MAX_CHARS
    for row in rows[:MAX_ROWS]:
        cells = [_cell(value) for value in row]
        room -= sum(len(cell) if isinstance(cell, str) else 1 for cell in cells)
        if shown and room < 0:
            return {"columns": columns, "rows": shown, "more": True}
        shown.append(cells)
    return {"columns": columns, "rows": shown, "more": more}


def _is_number(type_):
    import pyarrow as pa

    return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)


def _cell(value):
    """The value as the page shows it: a number that a browser holds exactly as such, NULL None, all else text, cut where it is long."""
    if value is None or isinstance(value, int) and not isinstance(value, bool) and abs(value) < EXACT:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = cell_text(value)
    return visible(text if len(text) <= MAX_CELL_CHARS else text[: MAX_CELL_CHARS - 1] + "…")


if __name__ == "__main__":
    main()
