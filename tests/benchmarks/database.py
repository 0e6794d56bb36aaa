"""Every operation of a synthetic database (synthetic_database.py): CPU and wall time and memory, each in a process of its own, beside its goal.

The goals are those of a database of a million features. CPU is user and system time; n: repetitions, of which the table has medians, after one
that does not count. Loading: all artifacts at once, how long the database was held, the size of the file; its ceiling is each table by one statement,
from read_parquet or from the others, and the words, learnt once. It is measured where the project has no database yet, or with --reload.

    python tests/benchmarks/database.py FOLDER                                      1,000,000 features: 10 GB of disk, an hour
    python tests/benchmarks/database.py FOLDER --features 20000 --only query api    operations whose names begin so
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
from benchmarks import database_operations as operations
from benchmarks import synthetic_database
from benchmarks.database_operations import FREE, Goal
from benchmarks.measured import cost, cpu_s, load_average, noted_holds

from cltdb.engine.workspace import Workspace

LOAD = Goal(300_000, 6000)
LIMITS = {"longest_s": 1.0, "file_mb": 4000, "times_ceiling": 1.5}
"""Goals for numbers in a result."""
HEAD = "| operation | n | CPU ms | wall ms | peak MB | rows | goal CPU ms | goal MB | missed |\n|---|---|---|---|---|---|---|---|---|"


class Table:
    """Measures operations and prints a row for each."""

    def __init__(self, repetitions):
        self.repetitions, self.n, self.missed = repetitions, 0, []

    def measure(self, name, function, *, goal=FREE, repetitions=None):
        """The `Cost` of function(), which prepares what is measured."""
        repetitions = self.repetitions if repetitions is None else repetitions
        return self.add(name, cost(function, repetitions=repetitions), goal=goal)

    def add(self, name, found, *, goal=FREE):
        missed = misses(goal, found)
        self.n, self.missed = self.n + 1, self.missed + [name] * bool(missed)
        cells = [name, found.n, *(f"{value:,.0f}" for value in (1000 * found.cpu_s, 1000 * found.wall_s, found.peak_mb))]
        cells += [said(found.result), *(f"{value:,}" if value else "" for value in goal), ", ".join(missed)]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        return found


def said(result):
    """The result of an operation as a cell: rows, or numbers with their names."""
    if isinstance(result, dict):
        return ", ".join(f"{name} {said(value)}" for name, value in result.items())
    return f"{result:,.2f}" if isinstance(result, float) else f"{result:,}" if isinstance(result, int) else result or ""


def misses(goal, found):
    """Which goals an operation misses."""
    result = found.result if isinstance(found.result, dict) else {}
    reached = {"CPU": (1000 * found.cpu_s, goal.cpu_ms), "memory": (found.peak_mb, goal.mb)}
    reached |= {name: (result[name], most) for name, most in LIMITS.items() if name in result}
    failed = ["failed"] if "error" in result else []
    return failed + [name for name, (value, most) in reached.items() if most is not None and value > most]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=1, help="that make the artifacts, where they are not there")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[""], metavar="PREFIX", help="operations whose names begin so")
    parser.add_argument("--reload", action="store_true", help="remove the database and load it anew")
    parser.add_argument("--against", action="store_true", help="exit status 1 where a goal is missed")
    options = parser.parse_args(arguments)
    folder, sizes = options.folder, synthetic_database.Sizes.of(options.features)
    made = cost(lambda: lambda: synthetic_database.make(folder, sizes, processes=options.processes), repetitions=0)
    about = f"{options.features:,} features, made in {made.cpu_s:.0f} CPU s and {made.peak_mb:,.0f} MB"
    print(f"{about}. Load average {load_average()}.\n\n{HEAD}", flush=True)
    table, database = Table(options.repetitions), folder / "cltdb.duckdb"
    if options.reload or not database.exists():
        load_all(table, folder, database, made.result)
    place = operations.Place(folder, database, cost(lambda: lambda: operations.place(folder).ids).result)
    for name, goal, prepare in operations.operations(place):
        if name.startswith(tuple(options.only)):
            table.measure(name, lambda prepare=prepare: prepare(place), goal=goal)
    print(f"\n{len(table.missed)} of {table.n} miss a goal: {', '.join(table.missed)}. Load average {load_average()}.")
    return int(bool(table.missed) and options.against)


# Loading


def load_all(table, folder, database, keys):
    """Loads all artifacts into a new database, as stage database does; keys: {stage: key} per experiment."""
    for suffix in ("", ".wal"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    workspace = Workspace(synthetic_database.this_project(folder).workspace)
    artifacts = {key: workspace.artifact(stage, key) for of in keys for stage, key in of.items()}
    found = cost(lambda: lambda: load(database, artifacts), repetitions=0)
    at_once = table.measure(
        "load: its tables, each by one statement", lambda: lambda: in_one_go(folder, artifacts), repetitions=0
    )
    more = {"file_mb": os.path.getsize(database) / 1e6, "times_ceiling": found.cpu_s / at_once.cpu_s}
    table.add("load: everything", found._replace(result=found.result | more), goal=LOAD)
    table.measure("load: everything is there", lambda: lambda: load(database, artifacts))
    cost(lambda: lambda: synthetic_database.load(folder, keys), repetitions=0)


def load(database, artifacts):
    """Loads artifacts, {key: directory}; how many rows, how often and how long at most the database was held for writing."""
    from cltdb.database.load import load_artifacts

    with noted_holds() as holds:
        rows = load_artifacts(database, list(artifacts.items()))
    longest = max((hold[1:] for hold in holds["write"]), default=(0.0, 0.0))
    return {"rows": rows, "holds": len(holds["write"]), "longest_s": longest[0], "of_it_cpu_s": longest[1]}


def in_one_go(folder, artifacts):
    """What loading could cost at best: each table of a new file by one statement, those made from others after them, the words of what is
    loaded learnt once, and the file closed. Its size, and the CPU time of the tables that artifacts hold alone, and of the words."""
    import duckdb

    from cltdb.database import store, words
    from cltdb.database.derived import definition
    from cltdb.database.tables import MADE_COLUMNS, derived_tables, loaded_tables

    with tempfile.TemporaryDirectory(dir=folder) as aside:
        path, before = Path(aside) / "new.duckdb", cpu_s()
        with duckdb.connect(path) as connection:
            store.apply(connection)
            for table in loaded_tables():
                for key, place in artifacts.items():
                    if files := sorted(map(str, place.glob(f"tables/{table}/*.parquet"))):
                        made = "".join(f", {sql} AS {name}" for name, sql in MADE_COLUMNS.get(table, {}).items())
                        rows = f"SELECT *{made}, '{key}' AS artifact_key FROM read_parquet({files!r})"
                        connection.execute(f"INSERT INTO {table} BY NAME {rows}")
            of_artifacts = cpu_s() - before
            for name in sorted(derived_tables()):  # as `derived.stale_pieces` does: words are made from best explanations
                for dict_id, n_layers in connection.execute("SELECT dict_id, n_layers FROM dictionaries").fetchall():
                    within = {"dict_id": dict_id, "first": 0, "last": n_layers}
                    connection.execute(f"INSERT INTO {name} BY NAME {definition(name)}", within)
            before = cpu_s()
            for (dict_id,) in connection.execute("SELECT DISTINCT dict_id FROM features").fetchall():
                tables = words._read(connection, dict_id)
                words._write(connection, dict_id, words._rows(dict_id, tables), words._means(tables), "")
            of_words = cpu_s() - before
        return {"file_of_mb": path.stat().st_size / 1e6, "of_artifacts_s": of_artifacts, "of_words_s": of_words}


if __name__ == "__main__":
    sys.exit(main())
