"""A sentence on rows that are not as they ought to be."""

from typing import NamedTuple

from cltdb.errors import CltdbError, escaped

VALUE_WIDTH = 60
"""Characters of a value that are shown."""
TOGETHER = 8
"""So many questions to small tables are one statement: most of their time goes into beginning it."""


class Problem(NamedTuple):
    """Rows of a table that are not as they ought to be."""

    table: str
    n: int
    example: dict
    """Key of the first of them, and the values that are wrong."""
    expected: str

    @property
    def rows(self):
        """Which they are: the table, how many, the first."""
        values = ", ".join(f"{name} {_short(value)}" for name, value in self.example.items())
        return f"{self.table}: {self.n:,} {'row' if self.n == 1 else 'rows'}, such as {values}"

    def __str__(self):
        return f"{self.rows}; expected {self.expected}"


class Unsound(CltdbError):
    """A database that was made and does not take its place. problems: what is wrong with it, a sentence each."""

    def __init__(self, where, *, problems=(), **said):
        super().__init__(where, **said)
        self.problems = problems


def _short(value):
    text = escaped("NULL" if value is None else str(value))
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 1]}…"


def found(connection, table, sql, expected, params=None):
    """The Problem of the rows that a query selects; nothing where it selects none."""
    [(n,)] = connection.execute(f"SELECT count(*) FROM ({sql})", params).fetchall()
    if n:
        yield _problem(connection, n, table, sql, expected, params)


def found_in_each(connection, asked):
    """The Problems of the rows that queries to small tables select, (table, SQL, expected) triples; nothing where they select none."""
    for some in (asked[start : start + TOGETHER] for start in range(0, len(asked), TOGETHER)):
        counts = " UNION ALL ".join(f"SELECT {number}, count(*) FROM ({sql})" for number, (_, sql, _) in enumerate(some))
        try:
            counted = sorted(connection.execute(counts).fetchall())
        except unanswered() as error:
            for one in some if len(some) > 1 else ():
                yield from found_in_each(connection, [one])
            if len(some) == 1:
                yield unreckoned(some[0][0], error, some[0][2])
            continue
        for number, n in counted:
            if n:
                yield _problem(connection, n, *some[number])


def unanswered():
    """The errors of a query that rows do not let DuckDB answer, such as of numbers whose sum is none of their type."""
    import duckdb

    return duckdb.DataError, duckdb.ProgrammingError


def unreckoned(table, error, expected):
    """A sentence on rows of which such a query asked."""
    return f"{table}: rows that cannot be reckoned with ({str(error).splitlines()[0]}); expected {expected}"


def _problem(connection, n, table, sql, expected, params=None):
    first = connection.execute(f"SELECT * FROM ({sql}) ORDER BY ALL LIMIT 1", params)
    names = [column[0] for column in first.description]
    [values] = first.fetchall()
    return Problem(table, n, dict(zip(names, values, strict=True)), expected)
