"""A tiny experiment as artifacts on disk: 2 layers, 3 features per layer, one graph. Feature 2 of each layer is dead."""

from worlds.tables import graph, model, rows

DICT = "tiny-clt-0123abcd"
WORDS = ["<bos>", "The", "capital", "of", "France", "is", "Paris", "'); DROP TABLE features; --"]
HOSTILE = WORDS[-1]
FEATURES = [(layer, feature) for layer in range(2) for feature in range(3)]
ALIVE = [key for key in FEATURES if key[1] != 2]
SCORES = {"rules": 0.9, "llm": 0.7, "baseline:shuffled": 0.99}


def model_tables():
    return model("toy", WORDS, architecture="gpt2", n_layers=2, d_model=8)


def metric_table(stage, dict_id=DICT, shift=0.0):
    values = [
        (step, layer, name, shift + value / (1 + step))
        for step in ((0, 1, 2) if stage == "train" else (0,))
        for layer in (None, 0, 1)
        for name, value in (("l0", 4.0), ("fvu", 0.2), ("dead_frac", 0.1))
    ]
    return rows("step layer name value", values, dict_id=dict_id, stage=stage)


def train_tables(dict_id=DICT):
    sizes = {"kind": "clt", "activation": "jumprelu", "n_layers": 2, "n_features": 3}
    dictionary = {"dict_id": dict_id, "experiment": "tiny", "model_id": "toy", **sizes}
    return {"dictionaries": [dictionary], "metrics": metric_table("train", dict_id)}


def feature_table():
    effects = rows("token value", [(6, 1.5), (1, 0.5)])
    sides = dict.fromkeys(("top_logits", "top_embeddings"), effects)
    sides |= dict.fromkeys(("bottom_logits", "bottom_embeddings"), effects[::-1])
    values = [(*key, 0.01 if key in ALIVE else 0.0, key not in ALIVE, [1.0, 2.0][key[0] :]) for key in FEATURES]
    return rows("layer feature density dead decoder_norms", values, dict_id=DICT, max_activation=3.0, **sides)


def context_table(n_ranks=2):
    keys = [(*key, band, rank) for key in ALIVE for band in ("top", "q0", "q1") for rank in range(n_ranks)]
    window = {"start": 1, "position": 4, "label": "en", "tokens": [1, 2, 3, 4], "activations": [0.0, 0.0, 0.5, 3.0]}
    values = [(*key, number, number) for number, key in enumerate(keys)]
    return rows("layer feature band rank document sequence", values, dict_id=DICT, max_activation=3.0, **window)


def explain_tables(*, scorers=("detection", "fuzzing"), text="fires on 'France'"):
    keys = [(*key, explainer) for key in ALIVE for explainer in SCORES]
    side = {"dict_id": DICT, "side": "input"}
    texts = [(*key, f"{text} ({key[2]})") for key in keys]
    scores = [(*key, scorer, SCORES[key[2]]) for scorer in scorers for key in keys]
    return {
        "explanations": rows("layer feature explainer text", texts, status="ok", cost_usd=0.0, **side),
        "scores": rows("layer feature explainer scorer score", scores, n=40, n_failed=0, **side),
    }


def graph_tables(graph_id="france-aaaa1111"):
    """Embedding 4 -> feature 0 -> feature 1 -> logit 5, and embedding 3 -> logit 5; nodes as the contract orders them."""
    nodes = [
        ("feature", 0, 1, 0, 1.0, 0.5, None, None),
        ("feature", 1, 2, 1, 2.0, 0.4, None, None),
        ("error", 0, 1, None, None, 0.1, None, None),
        ("embedding", None, 0, None, None, 0.1, 0, None),
        ("embedding", None, 1, None, None, 0.2, 1, None),
        ("logit", None, 2, None, None, 1.0, 6, 0.9),
    ]
    edges = [(4, 0, 1.0, 0.4, 1.0), (0, 1, 0.5, 0.3, 0.5), (1, 5, 2.0, 0.2, 2.5), (3, 5, 0.5, 0.1, None)]
    prompt = {"prompt_id": "france", "prompt": "The capital", "tokens": [0, 1, 2]}
    scores = {"replacement_score": 0.8, "completeness_score": 0.9}
    group = {"supernode_id": f"{graph_id}-s0", "graph_id": graph_id, "name": "Paris (The@1)", "node_ids": [0, 1]}
    return {"supernodes": [group]} | graph(
        {"graph_id": graph_id, "dict_id": DICT, "model_id": "toy", **prompt, **scores},
        rows("kind layer position feature activation influence token probability", nodes),
        rows("source_id target_id weight influence measured", edges),
    )


def random_graph_tables(graph_id, rng, *, n_features, dict_id=DICT):
    """A graph of random edges, all kept: features of rising layer and one position 1, an error, two embeddings, two logits (tokens 5, 6).

    rng: a `random.Random`. What nodes have of influence is random too.
    """
    places = [("feature", layer, 1, 0, None, None) for layer in range(n_features)]
    places += [("error", 0, 1, None, None, None), ("embedding", None, 0, None, 0, None), ("embedding", None, 1, None, 1, None)]
    places += [("logit", None, 1, None, 5, 0.7), ("logit", None, 1, None, 6, 0.2)]
    n, features, sources = len(places), range(n_features), range(n_features, n_features + 3)
    pairs = [(s, t) for t in features for s in features if s < t] + [(s, t) for s in sources for t in features]
    pairs += [(s, t) for t in (n - 2, n - 1) for s in range(n - 2)]
    pairs = sorted((pair for pair in pairs if rng.random() < 0.6), key=lambda pair: pair[::-1])
    influence = [0.0 if place[0] == "logit" else rng.random() for place in places]
    nodes = [(*place, influence, rng.random() / 10) for place, influence in zip(places, influence, strict=True)]
    weights = [rng.gauss(0, 1) for _ in pairs]
    return graph(
        {"graph_id": graph_id, "dict_id": dict_id, "model_id": "toy", "prompt_id": "random", "prompt": "The", "tokens": [0, 1]},
        rows("kind layer position feature token probability influence dropped_mass", nodes),
        rows("source_id target_id weight influence", [(*pair, w, rng.random()) for pair, w in zip(pairs, weights, strict=True)]),
    )


def random_ablation_tables(graph_id, rng, features, *, dict_id=DICT):
    """Each of `features` (rows of nodes) set to 0 in both modes, with random effects on logits 5 and 6 and on a feature; and of the first
    one two interventions by hand, which are none of the stage's ablations: doubled, and set to 0."""
    interventions, effects, nowhere = [], [], dict.fromkeys(("layer", "position", "feature"))
    for mode in ("iterative", "free"):
        by_hand = [("by-hand", "scale", 2.0, features[:1]), ("by-hand", "set", 0.0, features[:1])]
        for who, operation, value, chosen in (("ablate", "set", 0.0, features), *by_hand):
            for row in chosen:
                setting = {name: row[name] for name in ("layer", "feature", "position")}
                setting |= {"operation": operation, "value": value}
                name = f"{graph_id}-{who}-{operation}-{row['layer']}-{row['feature']}-{mode}"
                common = {"intervention_id": name, "graph_id": graph_id, "dict_id": dict_id, "model_id": "toy", "mode": mode}
                interventions.append(common | {"settings": [setting]})
                for kind, token in (("logit", 5), ("logit", 6), ("feature", None)):
                    numbers = {column: rng.gauss(0, 1) for column in ("before", "after", "predicted")}
                    effects.append({"intervention_id": name, "kind": kind, "token": token, **nowhere, **numbers})
    return {"interventions": interventions, "intervention_effects": effects}


def feature_edge_table(edges=((0, 0, 1, 1, 1.0, 0.5, 0.2, 0.1), (0, 1, 1, 0, -2.0, 0.0, 0.0, 0.0)), *, dict_id=DICT):
    """edges: source layer and feature, target layer and feature, virtual weight, era, twera, coactivation."""
    names = "source_layer source_feature target_layer target_feature virtual_weight era twera coactivation"
    return rows(names, edges, dict_id=dict_id)


FIRST = {"experiment": "tiny", "spec_hash": "h1", "spec_yaml": "name: tiny", "created_at": "2026-01-01T00:00:00+01:00"}
POINT = {"experiment": "tiny-l0_4", "spec_hash": "h2", "spec_yaml": "name: tiny-l0_4", "created_at": "2026-01-02T00:00:00+01:00"}
RUN = {"status": "done", "started_at": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "versions": {"cltdb": "0"}}
RECORDS = {
    "experiments": [FIRST, POINT | {"sweep": "tiny", "swept": {"train.l0": 4}}],
    "stage_runs": [
        RUN | {"run_id": f"run-{stage}", "experiment": "tiny", "spec_hash": "h1", "stage": stage, "key": f"{stage}-key"}
        for stage in ("model", "train")
    ],
}
