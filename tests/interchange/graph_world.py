"""A graph small enough to be written down, in a database of its own: 2 layers, prompt "The <b>cat", logits after " sat"."""

import json

import pyarrow as pa

from cltdb.database.load import load_artifact
from cltdb.engine.workspace import write_parquet

GRAPH, DICT, MODEL = "cat-aaaa1111", "toy-clt-0123abcd", "owner/toy"
WORDS = ["<bos>", "The", ' <b>"cat"</b>', " sat", "\\n"]
NODES = [  # kind, layer, position, feature, token, activation, influence, probability
    ("feature", 0, 1, 1, None, 2.5, 0.30, None),
    ("feature", 1, 2, 57794, None, 1.5, 0.50, None),
    ("feature", 1, 2, 57795, None, 0.5, 0.001, None),
    ("error", 0, 1, None, None, None, 0.05, None),
    ("error", 1, 1, None, None, None, 0.04, None),
    ("embedding", None, 0, None, 0, None, 0.01, None),
    ("embedding", None, 1, None, 1, None, 0.06, None),
    ("embedding", None, 2, None, 2, None, 0.039, None),
    ("logit", None, 2, None, 3, None, 0.0, 0.75),
    ("logit", None, 2, None, 4, None, 0.0, 0.125),
]
EDGES = [  # source, target, weight, measured
    (6, 0, 1.5, None),
    (0, 1, 0.75, 0.7500001),
    (3, 1, -0.25, None),
    (2, 8, 1e-3, None),
    (1, 8, 2.0, None),
    (4, 8, 0.5, None),
    (1, 9, -1.0, None),
]


def tables():
    nodes = [
        {
            "graph_id": GRAPH,
            "node_id": number,
            "kind": kind,
            "layer": layer,
            "position": position,
            "feature": feature,
            "activation": activation,
            "pre_activation": None if activation is None else activation + 0.25,
            "bias": None if activation is None else 0.125,
            "influence": influence,
            "token": token,
            "probability": probability,
            "expanded": kind in ("feature", "logit"),
            "dropped_mass": 0.0,
            "kept": number != 2,
        }
        for number, (kind, layer, position, feature, token, activation, influence, probability) in enumerate(NODES)
    ]
    edges = [
        {
            "graph_id": GRAPH,
            "source_id": source,
            "target_id": target,
            "weight": weight,
            "influence": abs(weight) / 4,
            "kept": source != 2,
            "measured": measured,
        }
        for source, target, weight, measured in EDGES
    ]
    graph = {
        "graph_id": GRAPH,
        "dict_id": DICT,
        "model_id": MODEL,
        "prompt_id": "cat",
        "prompt": 'The <b>"cat"</b>',
        "tokens": [0, 1, 2],
        "n_nodes": len(nodes),
        "n_edges": len(edges),
        "n_features_active": 7,
        "node_threshold": 0.8,
        "edge_threshold": 0.98,
        "replacement_score": 0.5,
        "completeness_score": 0.875,
        "max_abs_error": 1e-9,
        "seconds": 2.0,
    }
    dictionary = {"dict_id": DICT, "model_id": MODEL, "kind": "clt", "activation": "jumprelu", "n_layers": 2, "n_features": 60000}
    features = [
        {
            "dict_id": DICT,
            "layer": layer,
            "feature": feature,
            "density": 0.25,
            "max_activation": 4.0,
            "top_logits": [{"token": 3, "value": 1.0}, {"token": 9, "value": 0.5}],
            "bottom_logits": [{"token": 1, "value": -1.0}],
        }
        for layer, feature in ((0, 1), (1, 57794))
    ]
    contexts = [
        {
            "dict_id": DICT,
            "layer": 1,
            "feature": 57794,
            "band": band,
            "rank": 0,
            "document": 1,
            "sequence": 1,
            "start": 3,
            "position": 4,
            "label": None,
            "tokens": [1, 2, 3],
            "activations": [0.0, peak, 0.1],
            "max_activation": peak,
        }
        for band, peak in (("top", 4.0), ("q0", 0.5), ("q1", 3.0))
    ]
    explanation = {
        "dict_id": DICT,
        "layer": 1,
        "feature": 57794,
        "side": "input",
        "explainer": "rules",
        "text": 'fires on <i>"cats"</i>',
        "status": "ok",
    }
    return {
        "models": [{"model_id": MODEL, "revision": "main", "n_layers": 2, "vocab_size": len(WORDS)}],
        "vocabulary": [{"model_id": MODEL, "token": token, "string": string} for token, string in enumerate(WORDS)],
        "dictionaries": [dictionary],
        "features": features,
        "contexts": contexts,
        "explanations": [explanation],
        "graphs": [graph],
        "nodes": nodes,
        "edges": edges,
        "supernodes": [
            {"supernode_id": "s1", "graph_id": GRAPH, "name": "cats", "node_ids": [1, 2, 0]},
            {"supernode_id": "s2", "graph_id": GRAPH, "name": "pruned away", "node_ids": [2]},
        ],
    }


def build(folder, changes=None):
    """The database in `folder`, which is a project's. changes: {table: function of its rows}."""
    for table, rows in tables().items():
        rows = (changes or {}).get(table, lambda rows: rows)(rows)
        write_parquet(folder / "artifacts/attribute/k/tables" / table / "part.parquet", pa.Table.from_pylist(rows))
    (folder / "artifacts/attribute/k/manifest.json").write_text(json.dumps({"started_at": "2026-01-02T03:04:05+00:00"}))
    load_artifact(folder / "cltdb.duckdb", key="k", directory=folder / "artifacts/attribute/k")
    return folder / "cltdb.duckdb"
