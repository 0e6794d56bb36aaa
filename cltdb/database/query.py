"""One read-only statement to a stream of Arrow rows."""

import os
import re
import shutil
import signal
import threading
import time
import warnings
from contextlib import contextmanager, nullcontext
from datetime import date, datetime
from pathlib import Path

from cltdb.database import native
from cltdb.database.folder import reading
from cltdb.database.interrupts import interruptible, was_interrupted
from cltdb.database.store import reader_config
from cltdb.engine.workspace import explain_full_disk
from cltdb.errors import CltdbError

BATCH_ROWS = 50_000
SPOOL_SHARE = 0.5  # of the free disk, that the rows of one answer may take on their way
READING = ("SELECT", "EXPLAIN", "MULTI")  # DuckDB's types of statements that ask; MULTI is PIVOT
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
READS_FILES = re.compile(
    r"read_(blob|text|csv(_auto)?|(nd)?json\w*|parquet|duckdb|single_\w+_file)|parquet_\w+|glob|sniff_csv|query|json_execute_serialized_sql|"
    r"(arrow|arrow_scan|pandas|python_arrow|seq)_(scan|dumb)"
)
"""DuckDB's functions in whose place a table can stand that read files or memory, or run a text as a statement that may."""
FILE = re.compile(r"\.(parquet|[ct]sv|json|jsonl|ndjson|db|duckdb|ddb)\b", re.IGNORECASE)
"""In the name of a table: where there is no such table, DuckDB reads the file of that name."""
IN_TABLES_PLACE = re.compile(
    r"""(?:\b(?:FROM|JOIN|TABLE|PIVOT|UNPIVOT|SUMMARIZE|DESCRIBE|DESC|SHOW)|,)(?:\s|--[^\n]*\n|/\*.*?\*/)*('(?:[^']|'')*'|"(?:[^"]|"")*"|[\w.]+)""",
    re.IGNORECASE | re.DOTALL,
)
ENDS = {datetime.max, datetime.min, date.max, date.min}
warnings.filterwarnings("ignore", message="Arrow output on a DB-API result makes an extra copy")  # of few rows, in `own_answer`
FEW_ROWS = 2048  # that is what DuckDB works on at a time
NESTED = {"list", "array", "struct", "map", "tuple", "union"}
DATES = {"date", "timestamp", "timestamp_s", "timestamp_ms"}
"""Its types of which Python's lose infinity alone: DuckDB gives Python the first or last moment that it knows in its place."""
IN_ARROW = {"timestamp_ns", "timestamp with time zone", "time_ns", "interval", "map", "tuple"}
"""DuckDB's types that Python's lose something of, such as nanoseconds and the months of an interval, and those that have another form."""
NOT_IN_ARROW = {"uhugeint", "bignum", "bit", "time with time zone", "variant"}
"""Its types that it gives to Arrow as something else: a number above 2^127 as one below 0, the others as bytes or without their zone."""
EXPLAIN = re.compile(r"\s*EXPLAIN\s*(ANALYZE\b\s*)?(\([^)]*\)\s*)?", re.IGNORECASE)


@contextmanager
def ask(path, sql, params=None, *, timeout_s=None, connection=None, batch_rows=BATCH_ROWS, answered=None):
    """A `pyarrow.RecordBatchReader` over the result of one read-only statement.

    `params`: dict for `$name`, list for `?`. The database stays in use until the block ends. `timeout_s` ends a query
    that takes longer; Ctrl-C and SIGTERM end it at once. `connection`: an open one (of `reading`) to ask instead of another.
    `batch_rows`: rows that are made before the first can be read. `answered`: what makes the reader, `answer` or `own_answer`; or `few_rows`, which
    gives rows as Python values, or `rows_or_reader`, which gives them where they are few.
    """
    too_long = threading.Event()
    with nullcontext(connection) if connection else reading(path) as connection, interruptible(connection) as signals:
        timer = threading.Timer(timeout_s, lambda: (too_long.set(), connection.interrupt())) if timeout_s else None
        try:
            with errors_explained(path):
                if timer:
                    timer.start()
                yield (answered or answer)(connection, sql, params, batch_rows)
        except Interrupted as error:
            raise _interrupted(too_long, timeout_s, signals) from error
        finally:
            if timer:
                timer.cancel()


class Interrupted(Exception):
    """The query was ended by `connection.interrupt()`."""


def answer(connection, sql, params=None, batch_rows=BATCH_ROWS):
    """A `pyarrow.RecordBatchReader` over the result of one statement that asks."""
    return _reader(connection, _one_question(connection, sql), params, batch_rows)


def _reader(connection, question, params, batch_rows):
    import duckdb  # noqa: F401, as native.py tells
    import pyarrow as pa

    relation = connection.sql(question, params=params) if params else connection.sql(question)
    if relation is None:
        return pa.RecordBatchReader.from_batches(pa.schema([]), [])
    for name, kind in zip(relation.columns, relation.types, strict=True):
        if _types_in(kind) & NOT_IN_ARROW:
            do = f"cast it, for example {name}::VARCHAR"
            raise CltdbError("sql", found=f"column {name} of type {kind}", expected="a type that Arrow has, too", do=do)
    return relation.to_arrow_reader(batch_rows)


_parsed = {}
"""{SQL of cltdb's own: it as DuckDB parsed it}, of which there are few."""


def own_answer(connection, sql, params=None, batch_rows=BATCH_ROWS):
    """As `answer`, for a statement that is cltdb's own and whose rows fit into memory: it is run at once. `answer` has DuckDB plan a statement
    twice, first for the names and types of its columns, which costs a short question a fifth of its time. A statement that a process asks again
    is not parsed again, which of a search takes 13 CPU ms, of most questions 1."""
    import duckdb  # noqa: F401, as native.py tells

    return _run(connection, sql, params).to_arrow_reader(batch_rows)


def own_rows(connection, sql, params, *, first=None):
    """The rows {column: value} of a statement that is cltdb's own and has few: around few rows Arrow and Polars cost more than all else. first: so
    many at most; LIMIT below an ORDER BY has DuckDB read a table twice, first for the order, which takes longer where few rows are ordered."""
    found = _run(connection, sql, params)
    names = [name for name, *_ in found.description]
    rows = found.fetchall() if first is None else found.fetchmany(first)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _run(connection, sql, params):
    if sql not in _parsed:
        [_parsed[sql]] = connection.extract_statements(sql)
    return connection.execute(_parsed[sql], params)


def few_rows(connection, sql, params=None, batch_rows=BATCH_ROWS):
    """(column names, rows as Python values) of a statement that is cltdb's own and has few rows: without pyarrow, whose import costs as much as a
    question."""
    found = connection.execute(sql, params)
    return [name for name, *_ in found.description], found.fetchall()


def rows_or_reader(connection, sql, params=None, batch_rows=BATCH_ROWS):
    """As `few_rows`, for one statement that asks, whoever wrote it; the reader of `answer` where its rows, at most `batch_rows`, take longer as Python
    values than it took until the first were there: to ask again, through Arrow, takes less then, and takes the database for less."""
    question = _one_question(connection, sql)
    if question.type.name == "SELECT":
        began = time.process_time()
        found = connection.execute(question, params)
        columns = [(name, kind) for name, kind, *_ in found.description]
        if not any(kind.id not in DATES and _types_in(kind) & (IN_ARROW | DATES) for _, kind in columns):
            last = rows = found.fetchmany(FEW_ROWS)
            deadline = 2 * time.process_time() - began
            while len(last) == FEW_ROWS and len(rows) < batch_rows and time.process_time() < deadline:
                last = found.fetchmany(FEW_ROWS)
                rows += last
            if len(last) < FEW_ROWS and not _may_be_infinite(columns, rows):
                return [name for name, _ in columns], rows
        connection.abort()
    return _reader(connection, question, params, batch_rows)


def _may_be_infinite(columns, rows):
    return any(kind.id in DATES and not ENDS.isdisjoint(row[i] for row in rows) for i, (_, kind) in enumerate(columns))


def _types_in(kind):
    """Names of a DuckDB type and of all within it."""
    within = [part for _, part in kind.children if not isinstance(part, int)] if kind.id in NESTED else []
    return {kind.id}.union(*map(_types_in, within))


@contextmanager
def errors_explained(path):
    """Turns what DuckDB says of a query, at once or while its rows stream, into a CltdbError or `Interrupted`."""
    try:
        yield
    except Exception as error:
        if was_interrupted(error):
            raise Interrupted from error
        of_stream = isinstance(error, OSError) or type(error).__module__.startswith("pyarrow.")  # which need not be imported
        streamed = of_stream and " Error: " in str(error)  # DuckDB's, while rows stream
        if isinstance(error, native.duckdb().Error) or streamed:
            raise _query_error(path, error) from error
        raise


def spooled(reader, path):
    """Passes the batches of a reader on to a caller who writes them to the file `path`; CltdbError where that file grows beyond
    SPOOL_SHARE of the free disk."""
    folder = Path(path).parent
    limit = SPOOL_SHARE * shutil.disk_usage(folder).free
    with explain_full_disk(path, do="set TMPDIR to a folder on a larger disk"):
        for batch in reader:
            if os.path.getsize(path) + batch.nbytes > limit:
                raise CltdbError(
                    "sql",
                    found=f"an answer of more than {limit / 1e6:,.0f} MB, half of what is free in {folder.parent}",
                    expected="a smaller one",
                    do="restrict it, write it with `cltdb sql --format parquet -o FILE`, or set TMPDIR to a larger disk",
                )
            yield batch


def _one_question(connection, sql):
    """The statement in `sql`, parsed; CltdbError for anything but one that asks: read-only connections would still make temporary tables
    and load extensions."""
    statements = connection.extract_statements(sql)
    if not statements:
        do = 'write cltdb sql "SELECT …"; `cltdb sql "SHOW TABLES"` lists tables, `cltdb sql --list` named queries'
        raise CltdbError("sql", found="no statement", expected="one statement", do=do)
    if len(statements) != 1:
        raise CltdbError("sql", found=f"{len(statements)} statements", expected="one statement", do="ask them one at a time")
    if function := _reader_of_files(sql):
        raise CltdbError(
            "sql",
            found=f"the function {function}, which reads files or runs a text as SQL",
            expected="a question to the tables of the database",
            do='name tables; `cltdb sql "SHOW TABLES"` lists them',
        )
    if file := _file_as_table(connection, sql):
        raise CltdbError(
            "sql",
            found=f"the file {file} in place of a table",
            expected="a question to the tables of the database",
            do='name tables; `cltdb sql "SHOW TABLES"` lists them. DuckDB itself reads files',
        )
    kind = statements[0].type.name
    if kind == "EXPLAIN":  # ANALYZE runs what it explains
        explained = connection.extract_statements(EXPLAIN.sub("", COMMENT.sub(" ", sql), count=1))
        kind = explained[0].type.name if explained else kind
    if kind not in READING:
        raise CltdbError(
            "sql",
            found=f"a statement of the kind {_first_word(sql) if kind == 'LOAD' else kind}",
            expected="a question: SELECT, FROM, WITH, VALUES, PIVOT, SHOW, DESCRIBE, SUMMARIZE or EXPLAIN",
            do="ask one; what changes the database goes through `cltdb run` and `cltdb import`",
        )
    return statements[0]


def _first_word(sql):
    return COMMENT.sub(" ", sql).split()[0].upper()


def _reader_of_files(sql):
    """The first of READS_FILES that a statement calls; None where it calls none. An exported folder, and the file of the database, are open to
    its connection, and would be read whole into memory."""
    duckdb = native.duckdb()
    text = sql.encode()
    tokens = [(at, kind) for at, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment]
    for (at, kind), (following, _) in zip(tokens, tokens[1:], strict=False):
        if kind in (duckdb.token_type.identifier, duckdb.token_type.keyword) and text[following : following + 1] == b"(":
            name = re.match(rb'"?(\w+)', text[at:])
            if name and READS_FILES.fullmatch(found := name[1].decode("ascii", "ignore").lower()):
                return found
    return None


def _file_as_table(connection, sql):
    """The first name in a table's place that DuckDB would take for a file; None where there is none."""
    if not FILE.search(sql):
        return None
    try:
        names = connection.get_table_names(sql, qualified=True)
    except native.duckdb().Error:  # it knows neither PIVOT nor parameters
        names = IN_TABLES_PLACE.findall(sql)
    return min(filter(FILE.search, names), default=None)


def _interrupted(too_long, timeout_s, signals):
    """What a query that was ended raises: for a signal what its handler does, which DuckDB may have swallowed."""
    if too_long.is_set():
        return _took_too_long(timeout_s)
    deadline = time.monotonic() + 1  # DuckDB may have seen the signal before the thread that notes it
    while not signals and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in signals:
        if callable(handler := signal.getsignal(number)):
            handler(number, None)
    return KeyboardInterrupt()


def _query_error(path, error):
    if "Out of Memory Error" in str(error):
        return CltdbError(
            "sql",
            found=f"a query that needs more memory than its {reader_config(path)['memory_limit']} ({str(error).splitlines()[0]})",
            expected="less",
            do="restrict it, for example to one dictionary and layer, or set `database: {memory_limit: …}` in cltdb.yaml",
        )
    return CltdbError(
        "sql",
        found=str(error),
        expected="one read-only query on this database's tables",
        do='correct the query; `cltdb sql "SHOW TABLES"` lists tables, `cltdb sql --list` named queries',
    )


def _took_too_long(timeout_s):
    return CltdbError(
        "sql",
        found=f"a query that took longer than {timeout_s:g} s",
        expected="a shorter one",
        do="restrict it, or give it more time: `cltdb sql` has no limit without --timeout",
    )
