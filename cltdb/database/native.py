"""DuckDB's module: its package, or, in a process that asks one question, its compiled part alone.

What the package adds builds statements step by step and gives Arrow; to import it takes a third of a command's CPU time, and rows as Python values
need none of it. Whoever imports the package later adds it to all connections that there are. Both name the same classes.
"""

from contextlib import suppress
from importlib import import_module

_first = []
"""The name of the compiled part, in a process that uses it."""


def use_compiled_part():
    """From now on `duckdb` gives the compiled part alone in this process; where this DuckDB has none of that name, the package."""
    _first[:] = ["_duckdb"]


def duckdb():
    """DuckDB's module, to connect with and to name its errors."""
    for name in _first:
        with suppress(ModuleNotFoundError):
            return import_module(name)
    return import_module("duckdb")
