"""DuckDB's module: its package, or, in a process that asks one question, its compiled part alone.

What the package adds builds statements step by step and gives Arrow; to import it takes a third of a command's CPU time, and rows as Python values
need none of it. Whoever imports the package later adds it to all connections that there are. Both name the same classes.
"""

_of_process = []


def use_compiled_part():
    """From now on `duckdb` gives the compiled part alone in this process; where this DuckDB has none of that name, the package."""
    try:
        import _duckdb
    except ImportError:
        return
    _of_process[:] = [_duckdb]


def duckdb():
    """DuckDB's module, to connect with and to name its errors."""
    if _of_process:
        return _of_process[0]
    import duckdb

    return duckdb
