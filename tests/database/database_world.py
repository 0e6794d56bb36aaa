"""A tiny experiment as artifacts on disk: 2 layers, 3 features per layer, one graph."""

import json

import pyarrow as pa

from cltdb.database.store import connect
from cltdb.engine.workspace import write_parquet

DICT = "tiny-clt-0123abcd"
WORDS = ["<bos>", "The", "capital", "of", "France", "is", "Paris", "'); DROP TABLE features; --"]
HOSTILE = WORDS[-1]
LOGITS = pa.list_(pa.struct([("token", pa.int32()), ("value", pa.float32())]))
SUPERNODES = pa.schema(
    {"supernode_id": pa.string(), "graph_id": pa.string(), "name": pa.string(), "node_ids": pa.list_(pa.int32())}
)
FEATURES = [(layer, feature) for layer in range(2) for feature in range(3)]
EXPLAINERS = ("rules", "llm", "baseline:shuffled")


def ints(values):
    return pa.array(values, pa.int32())


def feature_columns(rows):
    return {
        "dict_id": [DICT] * len(rows),
        "layer": ints([layer for layer, _ in rows]),
        "feature": ints([feature for _, feature in rows]),
    }


def model_tables():
    vocabulary = {"model_id": ["toy"] * len(WORDS), "token": ints(range(len(WORDS))), "string": WORDS}
    model = {
        "model_id": ["toy"],
        "revision": ["main"],
        "architecture": ["gpt2"],
        "n_layers": [2],
        "d_model": [8],
        "vocab_size": [len(WORDS)],
    }
    return {"models": pa.table(model), "vocabulary": pa.table(vocabulary)}


def metric_table(stage, dict_id=DICT, shift=0.0):
    rows = [
        (step, layer, name, shift + value / (1 + step))
        for step in ((0, 1, 2) if stage == "train" else (0,))
        for layer in (None, 0, 1)
        for name, value in (("l0", 4.0), ("fvu", 0.2), ("dead_frac", 0.1))
    ]
    step, layer, name, value = zip(*rows, strict=True)
    return pa.table(
        {
            "dict_id": [dict_id] * len(rows),
            "stage": [stage] * len(rows),
            "step": pa.array(step, pa.int64()),
            "layer": ints(layer),
            "name": name,
            "value": value,
        }
    )


def train_tables(dict_id=DICT):
    row = {
        "dict_id": dict_id,
        "experiment": "tiny",
        "model_id": "toy",
        "kind": "clt",
        "activation": "jumprelu",
        "n_layers": 2,
        "n_features": 3,
    }
    return {"dictionaries": pa.Table.from_pylist([row]), "metrics": metric_table("train", dict_id)}


def feature_table():
    n = len(FEATURES)
    effects = pa.array([[{"token": 6, "value": 1.5}, {"token": 1, "value": 0.5}]] * n, LOGITS)
    return pa.table(
        {
            **feature_columns(FEATURES),
            "density": [0.0 if feature == 2 else 0.01 for _, feature in FEATURES],
            "max_activation": pa.array([3.0] * n, pa.float32()),
            "decoder_norms": pa.array([[1.0, 2.0][layer:] for layer, _ in FEATURES], pa.list_(pa.float32())),
            "dead": [feature == 2 for _, feature in FEATURES],
            "top_logits": effects,
            "bottom_logits": effects,
            "top_embeddings": effects,
            "bottom_embeddings": effects,
        }
    )


def context_table(n_ranks=2):
    rows = [
        (layer, feature, band, rank)
        for layer, feature in FEATURES
        if feature != 2
        for band in ("top", "q0", "q1")
        for rank in range(n_ranks)
    ]
    n = len(rows)
    return pa.table(
        {
            **feature_columns([row[:2] for row in rows]),
            "band": [row[2] for row in rows],
            "rank": ints([row[3] for row in rows]),
            "document": list(range(n)),
            "sequence": list(range(n)),
            "start": ints([1] * n),
            "position": ints([4] * n),
            "label": ["en"] * n,
            "tokens": pa.array([[1, 2, 3, 4]] * n, pa.list_(pa.int32())),
            "activations": pa.array([[0.0, 0.0, 0.5, 3.0]] * n, pa.list_(pa.float32())),
            "max_activation": [3.0] * n,
        }
    )


def explain_tables(*, scorers=("detection", "fuzzing"), text="fires on 'France'"):
    rows = [(*key, explainer) for key in FEATURES if key[1] != 2 for explainer in EXPLAINERS]
    common = {
        **feature_columns([row[:2] for row in rows]),
        "side": ["input"] * len(rows),
        "explainer": [row[2] for row in rows],
    }
    explanations = pa.table(
        {
            **common,
            "text": [f"{text} ({row[2]})" for row in rows],
            "status": ["ok"] * len(rows),
            "cost_usd": [0.0] * len(rows),
        }
    )
    score = {"rules": 0.9, "llm": 0.7, "baseline:shuffled": 0.99}
    scores = [
        pa.table(
            {
                **common,
                "scorer": [scorer] * len(rows),
                "score": [score[row[2]] for row in rows],
                "n": ints([40] * len(rows)),
                "n_failed": ints([0] * len(rows)),
            }
        )
        for scorer in scorers
    ]
    return {"explanations": explanations, "scores": pa.concat_tables(scores)}


def graph_tables(graph_id="france-aaaa1111"):
    """Embedding 4 -> feature 0 -> feature 1 -> logit 5, and embedding 3 -> logit 5; nodes as the contract orders them."""
    kinds = ["feature", "feature", "error", "embedding", "embedding", "logit"]
    n = len(kinds)
    nodes = pa.table(
        {
            "graph_id": [graph_id] * n,
            "node_id": ints(range(n)),
            "kind": kinds,
            "layer": ints([0, 1, 0, None, None, None]),
            "position": ints([1, 2, 1, 0, 1, 2]),
            "feature": ints([0, 1, None, None, None, None]),
            "activation": [1.0, 2.0, None, None, None, None],
            "influence": [0.5, 0.4, 0.1, 0.1, 0.2, 1.0],
            "token": ints([None, None, None, 0, 1, 6]),
            "probability": [None] * 5 + [0.9],
            "expanded": [True] * n,
            "kept": [True] * n,
        }
    )
    edges = [(4, 0, 1.0, 1.0), (0, 1, 0.5, 0.5), (1, 5, 2.0, 2.5), (3, 5, 0.5, None)]
    source, target, weight, measured = zip(*edges, strict=True)
    graph = {
        "graph_id": graph_id,
        "dict_id": DICT,
        "model_id": "toy",
        "prompt_id": "france",
        "prompt": "The capital",
        "tokens": [0, 1, 2],
        "n_nodes": n,
        "n_edges": len(edges),
        "replacement_score": 0.8,
        "completeness_score": 0.9,
    }
    group = {"supernode_id": f"{graph_id}-s0", "graph_id": graph_id, "name": "Paris (The@1)", "node_ids": [0, 1]}
    return {
        "graphs": pa.Table.from_pylist([graph]),
        "nodes": nodes,
        "supernodes": pa.Table.from_pylist([group], schema=SUPERNODES),
        "edges": pa.table(
            {
                "graph_id": [graph_id] * 4,
                "source_id": ints(source),
                "target_id": ints(target),
                "weight": weight,
                "influence": [0.4, 0.3, 0.2, 0.1],
                "kept": [True] * 4,
                "measured": measured,
            }
        ),
    }


def random_graph_tables(graph_id, rng, *, n_features, dict_id=DICT):
    """A graph of random edges, all kept: features of rising layer and one position 1, an error, two embeddings, two logits (tokens 5, 6).

    rng: a `random.Random`. What nodes have of influence is random too.
    """
    kinds = ["feature"] * n_features + ["error"] + ["embedding"] * 2 + ["logit"] * 2
    n, features, sources = len(kinds), range(n_features), range(n_features, n_features + 3)
    pairs = [(s, t) for t in features for s in features if s < t] + [(s, t) for s in sources for t in features]
    pairs += [(s, t) for t in (n - 2, n - 1) for s in range(n - 2)]
    pairs = sorted((pair for pair in pairs if rng.random() < 0.6), key=lambda pair: pair[::-1])
    nodes = {
        "graph_id": [graph_id] * n,
        "node_id": ints(range(n)),
        "kind": kinds,
        "layer": ints([*features, 0, None, None, None, None]),
        "position": ints([1] * n_features + [1, 0, 1, 1, 1]),
        "feature": ints([0] * n_features + [None] * 5),
        "influence": [rng.random() for _ in kinds[:-2]] + [0.0, 0.0],
        "token": ints([None] * (n - 4) + [0, 1, 5, 6]),
        "probability": pa.array([None] * (n - 2) + [0.7, 0.2], pa.float64()),
        "expanded": [True] * n,
        "dropped_mass": pa.array([rng.random() / 10 for _ in kinds], pa.float32()),
        "kept": [True] * n,
    }
    edges = {
        "graph_id": [graph_id] * len(pairs),
        "source_id": ints([source for source, _ in pairs]),
        "target_id": ints([target for _, target in pairs]),
        "weight": [rng.gauss(0, 1) for _ in pairs],
        "influence": [rng.random() for _ in pairs],
        "kept": [True] * len(pairs),
    }
    graph = {
        "graph_id": graph_id,
        "dict_id": dict_id,
        "model_id": "toy",
        "prompt_id": "random",
        "prompt": "The",
        "tokens": [0, 1],
    }
    return {"graphs": pa.Table.from_pylist([graph]), "nodes": pa.table(nodes), "edges": pa.table(edges)}


def random_ablation_tables(graph_id, rng, features, *, dict_id=DICT):
    """Each of `features` (rows of nodes) set to 0 in both modes, with random effects on logits 5 and 6 and on a feature; and of the first
    one two interventions by hand, which are none of the stage's ablations: doubled, and set to 0."""
    interventions, effects = [], []
    for mode in ("iterative", "free"):
        by_hand = [("by-hand", "scale", 2.0, features[:1]), ("by-hand", "set", 0.0, features[:1])]
        for who, operation, value, chosen in (("ablate", "set", 0.0, features), *by_hand):
            for row in chosen:
                setting = {name: row[name] for name in ("layer", "feature", "position")} | {
                    "operation": operation,
                    "value": value,
                }
                name = f"{graph_id}-{who}-{operation}-{row['layer']}-{row['feature']}-{mode}"
                common = {"intervention_id": name, "graph_id": graph_id, "dict_id": dict_id, "model_id": "toy", "mode": mode}
                interventions.append(common | {"settings": [setting]})
                for kind, token in (("logit", 5), ("logit", 6), ("feature", None)):
                    numbers = {column: rng.gauss(0, 1) for column in ("before", "after", "predicted")}
                    effects.append({"intervention_id": name, "kind": kind, "token": token, **numbers})
    place = [(name, pa.int32()) for name in ("layer", "feature", "position")]
    setting = pa.struct([*place, ("operation", pa.string()), ("value", pa.float64())])
    texts = [(name, pa.string()) for name in ("intervention_id", "graph_id", "dict_id", "model_id", "mode")]
    numbers = [(name, pa.float64()) for name in ("before", "after", "predicted")]
    return {
        "interventions": pa.Table.from_pylist(interventions, schema=pa.schema([*texts, ("settings", pa.list_(setting))])),
        "intervention_effects": pa.Table.from_pylist(
            effects, schema=pa.schema([*texts[:1], ("kind", pa.string()), *place, ("token", pa.int32()), *numbers])
        ),
    }


def feature_edge_table(edges=((0, 0, 1, 1, 1.0, 0.5, 0.2, 0.1), (0, 1, 1, 0, -2.0, 0.0, 0.0, 0.0)), *, dict_id=DICT):
    """edges: source layer and feature, target layer and feature, virtual weight, era, twera, coactivation."""
    names = ("source_layer", "source_feature", "target_layer", "target_feature", "virtual_weight", "era", "twera", "coactivation")
    columns = {name: list(column) for name, column in zip(names, zip(*edges, strict=True), strict=True)}
    return pa.table(
        {"dict_id": [dict_id] * len(edges)}
        | {name: ints(column) if column[0].__class__ is int else column for name, column in columns.items()}
    )


def write_artifact(root, key, tables, *, started_at="2026-01-01T00:00:00+00:00"):
    """An artifact directory with one part per table; returns (key, directory). Without `started_at` it is unfinished."""
    for table, rows in tables.items():
        write_parquet(root / key / "tables" / table / "part.parquet", rows)
    if started_at:
        (root / key / "manifest.json").write_text(json.dumps({"started_at": started_at}))
    return key, root / key


RECORDS = {
    "experiments": [
        {"experiment": "tiny", "spec_hash": "h1", "spec_yaml": "name: tiny", "created_at": "2026-01-01T00:00:00+01:00"},
        {
            "experiment": "tiny-l0_4",
            "spec_hash": "h2",
            "spec_yaml": "name: tiny-l0_4",
            "created_at": "2026-01-02T00:00:00+01:00",
            "sweep": "tiny",
            "swept": {"train.l0": 4},
        },
    ],
    "stage_runs": [
        {
            "run_id": f"run-{stage}",
            "experiment": "tiny",
            "spec_hash": "h1",
            "stage": stage,
            "key": f"{stage}-key",
            "status": "done",
            "started_at": "2026-01-01T00:00:00+00:00",
            "seconds": 1.0,
            "versions": {"cltdb": "0"},
        }
        for stage in ("model", "train")
    ],
}


def contents(path, *, leave_out=("stage_runs",)):
    """{table: sorted rows} without columns ending in `_at`, `seconds` and `host`: equality as design section 8 has it."""
    with connect(path) as connection:
        tables = connection.execute(
            "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() WHERE NOT internal "
            "AND table_name IN (SELECT table_name FROM duckdb_tables()) GROUP BY table_name"
        ).fetchall()
        found = {}
        for table, columns in tables:
            names = [name for name in columns if not name.endswith("_at") and name not in ("seconds", "host")]
            if table not in leave_out:
                found[table] = sorted(map(repr, connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()))
    return found
