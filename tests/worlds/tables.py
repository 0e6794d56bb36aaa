"""Rows of the database's tables as dicts, and artifacts that hold them; a column that a row lacks is NULL."""

import json

import polars as pl

from cltdb.database.load import load_artifact
from cltdb.database.store import connect
from cltdb.database.workbench import filled
from cltdb.engine.workspace import write_parquet


def rows(columns, values, **same):
    """A dict per tuple in `values`; columns: their names, as text. same: further columns, of one value."""
    names = columns.split()
    return [same | dict(zip(names, row, strict=True)) for row in values]


def model(model_id, words, **facts):
    """A model and its vocabulary."""
    facts = {"model_id": model_id, "revision": "main", "vocab_size": len(words)} | facts
    return {"models": [facts], "vocabulary": rows("token string", enumerate(words), model_id=model_id)}


def graph(facts, nodes, edges):
    """A graph: its nodes numbered as they come, all kept and expanded where they do not say otherwise."""
    same = {"graph_id": facts["graph_id"], "kept": True}
    return {
        "graphs": [{"n_nodes": len(nodes), "n_edges": len(edges)} | facts],
        "nodes": [same | {"node_id": number, "expanded": True} | node for number, node in enumerate(nodes)],
        "edges": [same | edge for edge in edges],
    }


def frame(rows):
    return pl.DataFrame(rows, infer_schema_length=None) if isinstance(rows, list) else rows


def write_artifact(root, key, tables, *, started_at="2026-01-01T00:00:00+00:00"):
    """An artifact directory with one part per table, of rows or a frame; returns (key, directory). Without `started_at` it is
    unfinished."""
    for table, content in tables.items():
        write_parquet(root / key / "tables" / table / "part.parquet", frame(content))
    if started_at:
        (root / key / "manifest.json").write_text(json.dumps({"started_at": started_at}))
    return key, root / key


def load(path, root, key, tables, **options):
    """Writes an artifact and loads it into the database at `path`."""
    key, directory = write_artifact(root, key, tables, **options)
    load_artifact(path, key=key, directory=directory)


def contents(path, *, leave_out=("stage_runs",)):
    """{table: its rows as text, sorted} without columns ending in `_at`, `seconds`, `host` and `made_from`, in which times are: equality as design
    section 8 has it."""
    with connect(path) as connection:
        tables = connection.execute(
            "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() WHERE NOT internal "
            "AND table_name IN (SELECT table_name FROM duckdb_tables()) GROUP BY table_name"
        ).fetchall()
        named = {table: columns for table, columns in tables if table not in leave_out}
        found, asked = {table: [] for table in named}, []
        for table in filled(connection, list(named)):
            names = [name for name in named[table] if not name.endswith("_at") and name not in ("seconds", "host", "made_from")]
            asked.append(f"SELECT '{table}', r::VARCHAR FROM (SELECT {', '.join(names)} FROM {table}) AS r")
        for table, text in connection.execute(" UNION ALL ".join(asked)).fetchall() if asked else ():
            found[table].append(text)
        return {table: sorted(texts) for table, texts in found.items()}
