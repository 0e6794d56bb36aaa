"""A database in figures that a person can read: rows and columns of each table, with means.

`python tests/golden/summary.py cltdb.duckdb` prints them as JSON: `tests/golden/quickstart.json` is such a summary, of a run of the
quickstart, with the keys of its stages.
"""

import json
import platform
import sys
from pathlib import Path

import duckdb

NUMBERS = ("DOUBLE", "FLOAT", "INTEGER", "BIGINT", "SMALLINT", "TINYINT", "BOOLEAN")
OF_THE_RUN = ("seconds", "made_at", "loaded_at", "applied_at", "created_at", "started_at")


def summary(path):
    """{table: {"rows": n, column: [non-NULL values, mean or number of different values]}} of every table but the records of loading."""
    with duckdb.connect(str(path), read_only=True) as connection:
        found = {}
        columns = connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() SEMI JOIN duckdb_tables() USING (table_name)"
            " WHERE NOT internal ORDER BY table_name, column_index"
        ).fetchall()
        for table, column, kind in columns:
            if table not in ("loaded_parts", "loaded_artifacts", "schema_migrations", "stage_runs", "experiments"):
                rows = found.setdefault(table, {"rows": connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]})
                if column not in OF_THE_RUN:
                    of = f'avg("{column}"::DOUBLE)' if kind in NUMBERS else f'count(DISTINCT "{column}")'
                    rows[column] = list(connection.execute(f'SELECT count("{column}"), {of} FROM "{table}"').fetchone())
        return found


def machine():
    """What the last digits depend on beside the code."""
    import torch

    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {_cpu()}, {torch.get_num_threads()} threads"
    return {"torch": torch.__version__, "processor": processor}


def _cpu():
    """Family, model and stepping, where the system tells them: libraries choose their code by them."""
    known, told = Path("/proc/cpuinfo"), ("cpu family", "model", "stepping")
    lines = [line.partition(":") for line in known.read_text().splitlines()] if known.exists() else []
    found = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    return " ".join(f"{name} {found[name]}" for name in told if name in found)


if __name__ == "__main__":
    print(json.dumps({"machine": machine(), "tables": summary(sys.argv[1])}, indent=1))
