"""Whether two databases hold the same rows, whatever their order: `python tests/compare_databases.py A.duckdb B.duckdb`.

Prints the first differences of each table with their values; exit status 1 where there are any, 2 where a file cannot be compared.
Columns of `RUN_SPECIFIC` tell of the run rather than of its result and are left out. Needs DuckDB alone, so that databases of two
versions of cltdb can be compared: tables and columns that only one of them has are differences, those of both are compared. Which
migrations a database had is its own history and is not compared.
"""

import argparse
import math
import re
import sys
from collections import defaultdict
from pathlib import Path

import duckdb

RUN_SPECIFIC = {  # table: columns that differ between two runs of the same spec
    "loaded_artifacts": ("made_at",),
    "loaded_parts": ("loaded_at",),
    "experiments": ("created_at",),
    "stage_runs": ("run_id", "started_at", "seconds", "host", "device", "versions"),  # run_id ends in the time and the process id
    "dictionaries": ("path",),
    "explanations": ("created_at",),
    "graphs": ("seconds",),
    "interventions": ("created_at",),
    "supernodes": ("created_at",),
    "annotations": ("created_at",),
    "word_statistics": ("made_from",),  # a digest in which the times of artifacts are
}
SHOWN = 5
"""Differences printed of each table."""
VALUE_WIDTH = 80
"""Characters printed of a value."""


def differences(first, second, *, rtol=0.0, leave_out=(), shown=SHOWN):
    """What differs between the databases at paths `first` (A) and `second` (B): one sentence each, empty where nothing does.

    rtol: relative difference at which two floats, also those in lists and structs, count as equal. leave_out: further columns,
    as "table.column", that are not compared. shown: at most so many differing rows of a table are spelled out.
    """
    with duckdb.connect() as connection:
        for name, path in (("a", first), ("b", second)):
            quoted = str(path).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS {name} (READ_ONLY)")
        tables_a, tables_b = (_tables(connection, name) for name in ("a", "b"))
        for tables in (tables_a, tables_b):
            tables.pop("schema_migrations", None)
        found = [f"{table}: only in {'A' if table in tables_a else 'B'}" for table in sorted(tables_a.keys() ^ tables_b.keys())]
        both = {table: (tables_a[table], tables_b[table]) for table in sorted(tables_a.keys() & tables_b.keys())}
        compared = {table: _compared(table, *columns, leave_out) for table, columns in both.items()}
        same = _same(connection, compared)
        for table, columns in both.items():
            found += _differing_columns(table, *columns, leave_out)
            if compared[table] and table not in same:
                found += _table_differences(connection, table, *columns, compared[table], rtol=rtol, shown=shown)
        return found


def _tables(connection, database):
    """{table: {column: type}} of an attached database."""
    found = defaultdict(dict)
    for table, column, kind in connection.execute(
        "SELECT c.table_name, c.column_name, c.data_type FROM duckdb_columns() AS c"
        " SEMI JOIN duckdb_tables() AS t USING (database_name, table_name)"
        " WHERE c.database_name = ? ORDER BY c.table_name, c.column_index",
        [database],
    ).fetchall():
        found[table][column] = kind
    return dict(found)


def _ignored(table, leave_out):
    return {*RUN_SPECIFIC.get(table, ()), *(name.partition(".")[2] for name in leave_out if name.partition(".")[0] == table)}


def _compared(table, columns_a, columns_b, leave_out):
    """The columns of a table that are compared."""
    return [column for column in columns_a if column in columns_b and column not in _ignored(table, leave_out)]


def _same(connection, compared):
    """The tables with the same rows on both sides: as many, and the same sum of their hashes. To ask so of all takes DuckDB a sixth of the time of EXCEPT."""
    sums = [
        f"""SELECT '{table}' AS name, (count(*), sum(hash({", ".join(f'"{column}"' for column in columns)}))) AS n FROM {database}."{table}\""""
        for table, columns in compared.items()
        for database in ("a", "b")
        if columns
    ]
    asked = f"SELECT name FROM ({' UNION ALL '.join(sums)}) GROUP BY name HAVING count(DISTINCT n) = 1"
    return {table for (table,) in connection.execute(asked).fetchall()} if sums else set()


def _differing_columns(table, columns_a, columns_b, leave_out):
    for column in sorted((columns_a.keys() ^ columns_b.keys()) - _ignored(table, leave_out)):
        yield f"{table}.{column}: only in {'A' if column in columns_a else 'B'}"
    for column in _compared(table, columns_a, columns_b, leave_out):
        if columns_a[column] != columns_b[column]:
            yield f"{table}.{column}: {columns_a[column]} in A, {columns_b[column]} in B"


def _table_differences(connection, table, columns_a, columns_b, columns, *, rtol, shown):
    """What differs in the compared columns of a table."""
    names = ", ".join(f'"{column}"' for column in columns)
    only_a, only_b = (
        connection.execute(f'SELECT {names} FROM {one}."{table}" EXCEPT ALL SELECT {names} FROM {other}."{table}"').fetchall()
        for one, other in (("a", "b"), ("b", "a"))
    )
    is_float = [re.search(r"FLOAT|DOUBLE", columns_a[column] + columns_b[column]) is not None for column in columns]
    found, rows = [], list(_differing_rows(only_a, only_b, columns, is_float, rtol))
    if rows:
        counts = [connection.execute(f'SELECT count(*) FROM {database}."{table}"').fetchone()[0] for database in ("a", "b")]
        found.append(f"{table}: {len(rows):,} rows differ ({counts[0]:,} in A, {counts[1]:,} in B)")
        found += [f"  {row}" for row in rows[:shown]] + ([f"  and {len(rows) - shown:,} more"] if len(rows) > shown else [])
    return found


def _differing_rows(only_a, only_b, columns, is_float, rtol):
    """One sentence per row that the other side lacks, or that differs in nothing but floats by more than `rtol`.

    Rows whose other columns agree belong together; several of them are paired in the order of their floats.
    """
    groups = defaultdict(lambda: ([], []))
    for side, rows in enumerate((only_a, only_b)):
        for row in rows:
            exact = tuple(repr(value) for value, loose in zip(row, is_float, strict=True) if not loose)
            groups[exact][side].append(row)
    for _, sides in sorted(groups.items()):
        rows_a, rows_b = (sorted(rows, key=lambda row: tuple(map(_sortable, row))) for rows in sides)
        for row_a, row_b in zip(rows_a, rows_b, strict=False):
            unlike = [i for i in range(len(columns)) if not _close(row_a[i], row_b[i], rtol)]
            if unlike:
                place = _spelled(row_a, [i for i in range(len(columns)) if not is_float[i]], columns)
                yield f"{place}: " + "; ".join(f"{columns[i]} {_short(row_a[i])} in A, {_short(row_b[i])} in B" for i in unlike)
        for name, rest in (("A", rows_a[len(rows_b) :]), ("B", rows_b[len(rows_a) :])):
            for row in rest:
                yield f"only in {name}: {_spelled(row, range(len(columns)), columns)}"


def _close(a, b, rtol):
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=rtol)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_close(x, y, rtol) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(value, b[name], rtol) for name, value in a.items())
    return type(a) is type(b) and a == b


def _sortable(value):
    if isinstance(value, float):
        return (1, value, "") if not math.isnan(value) else (2, 0.0, "")
    return (0, 0.0, "") if value is None else (3, 0.0, repr(value))


def _spelled(row, places, columns):
    return ", ".join(f"{columns[i]}={_short(row[i])}" for i in places if row[i] is not None)


def _short(value):
    text = repr(value)
    return text if len(text) <= VALUE_WIDTH else f"{text[:VALUE_WIDTH]}…"


def main(arguments=None):
    """Compares the two databases that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="compare_databases.py", description=__doc__.partition("\n")[0])
    parser.add_argument("first", type=Path, metavar="A.duckdb")
    parser.add_argument("second", type=Path, metavar="B.duckdb")
    parser.add_argument("--rtol", type=float, default=0.0, help="relative difference at which floats count as equal (default: 0)")
    parser.add_argument(
        "--leave-out", action="append", default=[], metavar="TABLE.COLUMN", help="do not compare this column either"
    )
    parser.add_argument("--shown", type=int, default=SHOWN, help=f"differing rows to print of each table (default: {SHOWN})")
    given = parser.parse_args(arguments)
    if missing := [str(path) for path in (given.first, given.second) if not path.is_file()]:
        print(f"no database at {missing[0]}", file=sys.stderr)
        return 2
    try:
        found = differences(given.first, given.second, rtol=given.rtol, leave_out=given.leave_out, shown=given.shown)
    except duckdb.Error as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return 2
    print("\n".join(found) or "the databases hold the same rows")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
