"""A database in figures that a person can read: rows and columns of each table, with means.

`python tests/golden/summary.py cltdb.duckdb` prints them as JSON: `tests/golden/quickstart.json` is such a summary, of a run of the
quickstart, with the keys of its stages. `figures` are answers that pages quote.
"""

import json
import platform
import sys
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[2]))

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


QUOTED = {
    "evaluation": "SELECT name, value FROM metrics WHERE stage = 'evaluate' AND layer IS NULL AND variant IS NULL AND label IS NULL"
    " AND name IN ('fvu', 'l0', 'top1_agreement', 'ce_original', 'ce_replacement', 'ce_zero', 'ce_mean') ORDER BY name",
    "detection": "SELECT explainer, avg(score) FROM scores WHERE scorer = 'detection' GROUP BY explainer ORDER BY explainer",
    "unscored": "SELECT count(*) FROM feature_cards WHERE density > 0 AND text IS NULL",
    "spearman": "SELECT ablation_spearman FROM graphs WHERE prompt_id = 'capital-of-france'",
    "0:281": "SELECT text FROM feature_cards WHERE layer = 0 AND feature = 281",
    "capital": "SELECT layer, feature, text, score FROM feature_cards WHERE text LIKE '%''capital%'"
    " ORDER BY score DESC, density DESC LIMIT 1",
}
"""Questions whose answers stand on pages."""


def figures(path):
    """{name in QUOTED: its rows}, and the mean cosines of explanations with their intervals; numbers to six places."""
    from cltdb.database import Database

    database = Database(path)
    found = {name: database.sql(query).rows() for name, query in QUOTED.items()}
    columns = [f"{name}{end}" for name in ("cosine", "shuffled") for end in ("", "_low", "_high")]
    found["cosines"] = database.query("explanation_distance").select(columns).rows()
    return {
        name: [[round(value, 6) if isinstance(value, float) else value for value in row] for row in rows]
        for name, rows in found.items()
    }


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
    print(json.dumps({"machine": machine(), "tables": summary(sys.argv[1]), "figures": figures(sys.argv[1])}, indent=1))
