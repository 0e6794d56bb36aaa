"""A question that `cltdb db check` asks."""

from collections.abc import Callable
from typing import NamedTuple


class Question(NamedTuple):
    """A query whose rows, each with the key of a row of `table` and what is wrong with it, are none."""

    table: str
    sql: str
    expected: str
    slow: bool = False
    proof: Callable | None = None
    """Of large tables: a function of the connection that is true where it is quickly seen that there are no such rows."""
