"""A graph small enough to be written down, in a database of its own: 2 layers, prompt "The <b>cat", logits after " sat"."""

from worlds import tables as of

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


NODE = "kind layer position feature token activation influence probability"


def tables():
    nodes = [
        node
        | {
            "pre_activation": None if node["activation"] is None else node["activation"] + 0.25,
            "bias": None if node["activation"] is None else 0.125,
            "expanded": node["kind"] in ("feature", "logit"),
            "kept": number != 2,
        }
        for number, node in enumerate(of.rows(NODE, NODES, dropped_mass=0.0))
    ]
    edges = [(*edge, abs(edge[2]) / 4, edge[0] != 2) for edge in EDGES]
    scores = {"replacement_score": 0.5, "completeness_score": 0.875, "max_abs_error": 1e-9, "seconds": 2.0}
    prompt = {"prompt_id": "cat", "prompt": 'The <b>"cat"</b>', "tokens": [0, 1, 2], "n_features_active": 7}
    facts = {"graph_id": GRAPH, "dict_id": DICT, "model_id": MODEL, "node_threshold": 0.8, "edge_threshold": 0.98}
    effects = {"top_logits": of.rows("token value", [(3, 1.0), (9, 0.5)]), "bottom_logits": [{"token": 1, "value": -1.0}]}
    key = {"dict_id": DICT, "layer": 1, "feature": 57794}
    windows = [(band, [0.0, peak, 0.1], peak) for band, peak in (("top", 4.0), ("q0", 0.5), ("q1", 3.0))]
    place = {"rank": 0, "document": 1, "sequence": 1, "start": 3, "position": 4, "tokens": [1, 2, 3]}
    return {
        **of.model(MODEL, WORDS, n_layers=2),
        "dictionaries": [
            {"dict_id": DICT, "model_id": MODEL, "kind": "clt", "activation": "jumprelu", "n_layers": 2, "n_features": 60000}
        ],
        "features": of.rows("layer feature", [(0, 1), (1, 57794)], dict_id=DICT, density=0.25, max_activation=4.0, **effects),
        "contexts": of.rows("band activations max_activation", windows, **key, **place),
        "explanations": [key | {"side": "input", "explainer": "rules", "text": 'fires on <i>"cats"</i>', "status": "ok"}],
        **of.graph(facts | prompt | scores, nodes, of.rows("source_id target_id weight measured influence kept", edges)),
        "supernodes": of.rows(
            "supernode_id name node_ids", [("s1", "cats", [1, 2, 0]), ("s2", "pruned away", [2])], graph_id=GRAPH
        ),
    }


def build(folder, changes=None):
    """The database in `folder`, which is a project's. changes: {table: function of its rows}."""
    content = {name: (changes or {}).get(name, lambda rows: rows)(rows) for name, rows in tables().items()}
    of.load(folder / "cltdb.duckdb", folder / "artifacts/attribute", "k", content, started_at="2026-01-02T03:04:05+00:00")
    return folder / "cltdb.duckdb"
