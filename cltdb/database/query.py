"""One statement to a stream of Arrow rows, and the named queries that ship as .sql files.

A named query opens with a comment: a title, `Grain:`, `Order:`, and under `Parameters:` one line each, `$name =
default meaning` (without `= default` it must be given). Values are passed as parameters, never pasted into SQL; the
SQL casts them.
"""

import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cltdb.database.store import connect
from cltdb.errors import CltdbError

QUERIES = Path(__file__).parent / "queries"
BATCH_ROWS = 50_000


class NamedQuery(NamedTuple):
    """A query that ships with cltdb."""

    name: str
    title: str
    grain: str
    order: str
    parameters: dict  # name -> (default text or None, required, meaning)
    sql: str


@contextmanager
def ask(path, sql, params=None, *, timeout_s=None):
    """A `pyarrow.RecordBatchReader` over the result of one read-only statement.

    `params`: dict for `$name`, list for `?`. The database stays in use until the block ends. `timeout_s` ends a query
    that takes longer.
    """
    import duckdb
    import pyarrow as pa

    with connect(path) as connection:
        timer = threading.Timer(timeout_s, connection.interrupt) if timeout_s else None
        try:
            _require_one_statement(connection, sql)
            if timer:
                timer.start()
            relation = connection.sql(sql, params=params) if params else connection.sql(sql)
            yield (
                relation.to_arrow_reader(BATCH_ROWS)
                if relation is not None
                else pa.RecordBatchReader.from_batches(pa.schema([]), [])
            )
        except duckdb.InterruptException as error:
            raise _took_too_long(timeout_s) from error
        except duckdb.Error as error:
            raise _query_error(error) from error
        except (pa.ArrowException, OSError) as error:  # DuckDB errors that surface while rows stream
            if "INTERRUPT" in str(error):
                raise _took_too_long(timeout_s) from error
            if " Error: " not in str(error):
                raise
            raise _query_error(error) from error
        finally:
            if timer:
                timer.cancel()


def _require_one_statement(connection, sql):
    n_statements = len(connection.extract_statements(sql))
    if n_statements != 1:
        raise CltdbError("sql", found=f"{n_statements} statements", expected="one statement", do="ask them one at a time")


def _query_error(error):
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
        do="restrict it, or ask it with `cltdb sql`, which has no limit",
    )


def named_query(name):
    """The named query `name`."""
    files = {path.stem: path for path in sorted(QUERIES.glob("*.sql"))}
    if name not in files:
        raise CltdbError(
            "sql --query",
            found=f"no query {name!r}",
            expected=f"one of {', '.join(files)}",
            do="choose one; `cltdb sql --list` explains them",
        )
    return _parse(name, files[name].read_text(encoding="utf-8"))


def list_queries():
    """All named queries by name."""
    return [named_query(path.stem) for path in sorted(QUERIES.glob("*.sql"))]


def _parse(name, text):
    header = [line[2:].strip() for line in text.split("\n\n")[0].splitlines() if line.startswith("--")]
    fields = {line.partition(":")[0]: line.partition(":")[2].strip() for line in header if re.match(r"(Grain|Order):", line)}
    title = " ".join(header[: next(i for i, line in enumerate(header) if line.startswith("Grain:"))])
    found = (re.match(r"\$(\w+)(?: = (\S+))?\s+(.*)", line) for line in header)
    parameters = {match[1]: (None if match[2] == "NULL" else match[2], match[2] is None, match[3]) for match in found if match}
    return NamedQuery(name, title, fields["Grain"], fields["Order"], parameters, text)


def named_query_params(query, given):
    """All parameters of a named query: those given (as text or values), the others by default."""
    unknown = [name for name in given if name not in query.parameters]
    missing = [name for name, (_, required, _) in query.parameters.items() if required and name not in given]
    if unknown or missing:
        found = f"unknown parameter {unknown[0]!r}" if unknown else f"no value for {', '.join(missing)}"
        raise CltdbError(
            f"query {query.name}",
            found=found,
            expected=f"parameters {', '.join(query.parameters) or '(none)'}",
            do="give parameters as `-p name=value`",
        )
    return {name: given.get(name, default) for name, (default, _, _) in query.parameters.items()}
