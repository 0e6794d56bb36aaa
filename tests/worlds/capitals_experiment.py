"""A small made-up experiment for the pages: 4 layers, 30 features each, one prompt's graph. Some of it is hostile."""

import math
import random
from itertools import product

from cltdb.database.load import load_artifacts, save_records
from worlds import compared_labels
from worlds import tables as of

DICT, OTHER_DICT, GRAPH, SECOND_GRAPH = "toy-clt-0123abcd", "toy-plt-89ef4567", "france-aaaa1111", "big-bbbb2222"
SWEEP, IN_TRAINING = "zoo", "zoo-clt-77777777"
HOSTILE = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
LONG = "x" * 400
WORDS = ["<bos>", "The", "capital", "of", "France", "is", "Paris", "Berlin", "Germany", "city", "river", "\n", LONG, HOSTILE]
WORDS += [f"word{i}" for i in range(26)]
PROMPT = [0, 1, 2, 3, 4, 5]
N_LAYERS, N_FEATURES = 4, 30
CAPITALS = (2, 7)  # the feature about capitals
UNEXPLAINED, DEAD, NAN, HOSTILE_FEATURE = (0, 1), (0, 2), (0, 3), (0, 4)
STAGES = ("model", "activations", "train", "evaluate", "harvest", "explain", "attribute", "database")
KEYS = [(layer, feature) for layer in range(N_LAYERS) for feature in range(N_FEATURES)]


def dictionary_tables(dict_id, kind, *, scale, experiment="toy", activation="jumprelu", l0=8.4):
    dictionary = {
        "dict_id": dict_id, "experiment": experiment, "model_id": "toy", "kind": kind, "activation": activation, "n_layers": N_LAYERS,
        "n_features": N_FEATURES, "d_model": 8,
    }  # fmt: skip
    metrics = []
    for name, final in {"fvu": 0.08, "l0": l0 / scale, "dead_frac": 0.03, "loss": 1.2}.items():
        for layer in (None, *range(N_LAYERS)):
            shift = 1 + 0.1 * (layer or 0)
            for step in range(0, 1001, 50):
                value = scale * final * shift * (1 + 6 * math.exp(-step / 150))
                metrics.append(("train", step, layer, name, value))
            if name != "loss":
                metrics.append(("evaluate", 1000, layer, name, scale * final * shift))
    pooled = {
        "ce_original": 1.9, "ce_replacement": 2.0, "ce_zero": 5.1, "ce_mean": 4.4, "ce_recovered": 0.968,
        "kl_nats": 0.06, "top1_agreement": 0.887, "top1_agreement_confident": float("nan"),
    }  # fmt: skip
    metrics += [("evaluate", 1000, None, name, value) for name, value in pooled.items()]
    rows = of.rows("stage step layer name value", metrics, dict_id=dict_id)
    return {"dictionaries": [dictionary], "metrics": rows}


def harvest_tables(seed=0):
    dice = random.Random(seed)
    features, contexts = [], []
    for layer, feature in KEYS:
        key = {"dict_id": DICT, "layer": layer, "feature": feature}
        dead, is_nan = (layer, feature) == DEAD, (layer, feature) == NAN
        effects = [{"token": dice.randrange(1, len(WORDS)), "value": 2.4 / (i + 1)} for i in range(10)]
        if (layer, feature) == CAPITALS:
            effects[0] = {"token": 6, "value": 3.1}
        peak = float("nan") if is_nan else 0.0 if dead else 2 + 4 * dice.random()
        features.append(
            {
                **key, "density": float("nan") if is_nan else 0.0 if dead else 10 ** (-1 - 3 * dice.random()), "max_activation": peak,
                "mean_activation": peak / 3, **({} if (layer, feature) in (UNEXPLAINED, NAN) else activations(peak)), "threshold": 0.4, "encoder_norm": 1.1,
                "decoder_norms": [0.9 / (1 + i) for i in range(N_LAYERS - layer)], "dead": dead,
                "top_logits": effects, "bottom_logits": [{"token": e["token"], "value": -e["value"]} for e in effects],
                "top_embeddings": [{"token": 2, "value": 1.5}], "bottom_embeddings": [], "label_entropy": compared_labels.label_entropy(feature),
            }
        )  # fmt: skip
        bands = [] if dead else [("top", 8), ("q0", 3), ("q1", 3)]
        contexts += [context_row(key, band, rank, peak, dice) for band, n in bands for rank in range(n)]
    return {"features": features, "contexts": contexts}


def activations(peak):
    """What harvest knows of activations that are equally likely in each of the 12 bins below the maximum's power of two."""
    if not peak:
        return {"n_contexts": 0, "n_documents": 0, "histogram": []}
    octave = 2.0 ** math.floor(math.log2(peak))
    lows = [octave / 2**down * (1 + quarter / 4) for down in (3, 2, 1) for quarter in range(4)]
    quantiles = [lows[int(12 * share)] for share in (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)]
    histogram = [{"low": low, "n": 10 + i} for i, low in enumerate(lows) if i != 5]
    return {"n_contexts": 13, "n_documents": 9, "std_activation": peak / 5, "quantiles": quantiles, "histogram": histogram}


def edge_table():
    """One edge into the feature about capitals, from the one whose text is hostile."""
    names = "source_layer source_feature target_layer target_feature virtual_weight era twera coactivation"
    return of.rows(names, [(*HOSTILE_FEATURE, *CAPITALS, -1.25, -0.5, -0.75, 0.01)], dict_id=DICT)


def context_row(key, band, rank, peak, dice):
    tokens = [dice.randrange(1, len(WORDS)) for _ in range(16)]
    activations = [0.0] * 16
    strength = {"top": 1.0, "q0": 0.2, "q1": 0.6}[band] * peak * (1 - 0.04 * rank)
    activations[9], activations[10] = strength, strength / 3
    if (key["layer"], key["feature"]) == CAPITALS:
        tokens[7:11] = [2, 3, 4, 5]
    return {
        **key, "band": band, "rank": rank, "document": rank, "sequence": rank, "start": 4, "position": 13,
        "label": ("en", "fr", "de")[rank % 3], "tokens": tokens, "activations": activations, "max_activation": strength,
    }  # fmt: skip


def explain_tables():
    explanations, scores = [], []
    for layer, feature in KEYS:
        if (layer, feature) in (UNEXPLAINED, DEAD):
            continue
        text = {CAPITALS: "names of countries after “capital of”", HOSTILE_FEATURE: HOSTILE}.get(
            (layer, feature), f"fires on word{feature}"
        )
        for explainer, score in {"rules": 0.55 + 0.01 * feature + 0.03 * layer, "baseline:shuffled": 0.5}.items():
            key = {"dict_id": DICT, "layer": layer, "feature": feature, "side": "input", "explainer": explainer}
            explanations.append({**key, "text": text, "model": "cltdb-rules/v1", "status": "ok", "error": None, "cost_usd": 0.0})
            for scorer in ("detection", "fuzzing"):
                interval = {"ci_low": score - 0.1, "ci_high": score + 0.1}
                scores.append(key | {"scorer": scorer, "score": score, "n": 40, "n_failed": 0} | interval)
    return {"explanations": explanations, "scores": scores}


def graph_nodes(n_per_cell, seed=1):
    """Nodes as the contract orders them: features, errors, embeddings, logits."""
    dice = random.Random(seed)
    nodes = []
    for layer in range(N_LAYERS):
        for position in range(1, len(PROMPT)):
            chosen = sorted(dice.sample(range(5, N_FEATURES), n_per_cell))
            if (layer, position) == (CAPITALS[0], 5):
                chosen = sorted({CAPITALS[1], *chosen[1:]})
            place = {"kind": "feature", "layer": layer, "position": position}
            values = [(feature, 1 + dice.random(), dice.random()) for feature in chosen]
            nodes += of.rows("feature activation influence", values, **place)
    nodes += [
        {"kind": "error", "layer": layer, "position": position, "influence": 0.2 * dice.random() ** 3}
        for layer in range(N_LAYERS)
        for position in range(1, len(PROMPT))
    ]
    nodes += [{"kind": "embedding", "position": i, "token": token, "influence": 0.4} for i, token in enumerate(PROMPT)]
    logits = {"kind": "logit", "position": len(PROMPT) - 1, "influence": 0.0, "pre_activation": 9.0}
    return nodes + of.rows("token probability", [(6, 0.92), (7, 0.05), (13, 0.01)], **logits)


def graph_tables(graph_id=GRAPH, *, n_per_cell=3, seed=1):
    dice = random.Random(seed)
    nodes = [{"node_id": number, **node} for number, node in enumerate(graph_nodes(n_per_cell))]
    height = {"embedding": -1, "logit": N_LAYERS}
    edges = []
    for target in nodes:
        if target["kind"] in ("error", "embedding"):
            continue
        for source in nodes:
            below = height.get(source["kind"], source.get("layer", 0)) < height.get(target["kind"], target.get("layer", 0))
            if source["kind"] != "logit" and below and source["position"] <= target["position"] and dice.random() < 0.3:
                weight = dice.gauss(0, 1)
                edges.append((source["node_id"], target["node_id"], weight, abs(weight) * (target["influence"] + 0.3), None))
    edges[0] = (*edges[0][:4], edges[0][2])
    graph = {
        "graph_id": graph_id, "dict_id": DICT, "model_id": "toy", "prompt_id": "france", "prompt": "The capital of France is",
        "tokens": PROMPT, "target": "Paris", "replacement_score": 0.71, "completeness_score": 0.88, "node_threshold": 0.8,
        "edge_threshold": 0.98, "max_abs_error": 2e-9,
    }  # fmt: skip
    return of.graph(graph, nodes, of.rows("source_id target_id weight influence measured", edges))


def path_tables(graph):
    """Stored paths of a graph (tables of `graph_tables`): from embeddings through a feature to the likeliest answer, half of each first step through
    a head. The listed ones carry 60 % of all paths."""
    nodes, weight = graph["nodes"], {(edge["source_id"], edge["target_id"]): edge["weight"] for edge in graph["edges"]}
    answer = next(node["node_id"] for node in nodes if node["kind"] == "logit")
    kind = {node["node_id"]: node["kind"] for node in nodes}
    walks = [
        (first, middle, weight[first, middle] * weight[middle, answer] / nodes[middle]["activation"])
        for first, middle in weight
        if kind[first] == "embedding" and kind[middle] == "feature" and (middle, answer) in weight
    ]
    walks = sorted(walks, key=lambda walk: -abs(walk[2]))[:20]
    total = sum(abs(value) for *_, value in walks) / 0.6
    paths = [(i, i + 1, answer, value, abs(value) / total) for i, (*_, value) in enumerate(walks)]
    steps = []
    for i, (first, middle, _) in enumerate(walks):
        half, active = weight[first, middle] / 2, nodes[middle]["activation"]
        steps += [
            (i, 0, first, middle, "L1H0", "L1H0", nodes[first]["position"], 0.5, 2 * half),
            (i, 0, first, middle, "residual", None, None, 0.25, 4 * half),
        ]
        steps.append((i, 1, middle, answer, "residual", None, None, active, weight[middle, answer] / active))
    same = {"graph_id": graph["graphs"][0]["graph_id"]}
    return {
        "paths": of.rows("path_id rank target_id weight share", paths, **same),
        "path_steps": of.rows("path_id step source_id target_id via head source_position input_factor weight_factor", steps, **same),
    }  # fmt: skip


def intervention_tables():
    """One intervention on the graph's prompt: the feature about capitals is ablated, and the answer is Berlin."""
    name = "france-by-hand"
    setting = {"layer": CAPITALS[0], "feature": CAPITALS[1], "position": 5, "operation": "set", "value": 0.0}
    row = {
        "intervention_id": name, "graph_id": GRAPH, "dict_id": DICT, "model_id": "toy", "prompt": "The capital of France is", "tokens": PROMPT,
        "mode": "free", "settings": [setting], "text_without": "Paris", "text_with": HOSTILE,
    }  # fmt: skip
    logits = [("logit", None, 5, None, 6, 9.0, 5.0, 2.5, 0.92, 0.21), ("logit", None, 5, None, 7, 6.0, 7.0, None, 0.05, 0.7)]
    features = [
        ("feature", *CAPITALS[:1], 5, CAPITALS[1], None, 1.5, 0.0, 0.0, None, None),
        ("feature", 3, 5, 29, None, 0.0, 0.5, None, None, None),
    ]
    names = "kind layer position feature token before after predicted probability_before probability_after"
    return {"interventions": [row], "intervention_effects": of.rows(names, logits + features, intervention_id=name)}


def isolation_rows():
    """Of each layer of two dictionaries a few features at two strengths, of which one is a concept's with a hostile name."""
    for dict_id, layer, feature, multiple in product((DICT, OTHER_DICT), range(N_LAYERS), (4, 7, 9), (1.0, 4.0)):
        later = {"leakage_later": multiple / (1 + layer), "most_layer": layer + 1, "most_feature": feature, "most_change": 0.25}
        of_concept = {"concept": HOSTILE, "n_drop": 8, "success_drop": 0.5, "n_include": 8, "success_include": 0.25}
        yield {
            "dict_id": dict_id, "layer": layer, "feature": feature, "multiple": multiple, "is_sampled": True, "high": 2.0, "decoder_norm": 1.0,
            "decoder_overlap": feature / 2, "n_prompts": 4, "n_unrelated": 2, "kl_nats": feature / 100, **(later if layer < N_LAYERS - 1 else {}),
            **(of_concept if feature == 4 else {}),
        }  # fmt: skip


def stage_runs():
    return [
        {
            "run_id": f"run-{stage}", "experiment": "toy", "spec_hash": "0a1b2c3d4e", "stage": stage, "key": f"{stage}-key",
            "status": "failed" if stage == "database" else "done", "started_at": f"2026-01-01T00:0{i}:00+00:00", "seconds": 0.4 * 4**i,
            "device": "cpu", "error": HOSTILE if stage == "database" else None,
        }
        for i, stage in enumerate(STAGES)
    ]  # fmt: skip


def sweep_points():
    """(artifact key, tables, experiment record, run record) of a sweep over kind, activation and l0, one value of it hostile."""
    for i, (kind, activation, l0) in enumerate(
        (kind, activation, l0) for kind in ("clt", "plt") for activation in ("batchtopk", "relu") for l0 in (4, 8, 16)
    ):
        name, key = f"{SWEEP}-kind_{kind}-activation_{activation}-l0_{l0}", f"{i:08d}-key"
        scale = 3 * l0**-0.5 * (1.3 if kind == "plt" else 1) * (1.2 if activation == "relu" else 1)
        dict_id = f"{name}-{kind}-{key[:8]}"
        tables = dictionary_tables(dict_id, kind, scale=scale, experiment=name, activation=activation, l0=l0 * scale)
        swept = {"train.kind": kind, "train.activation": activation, "train.l0": l0}
        swept["activations.label"] = HOSTILE if i == 5 else "en"
        experiment = {"experiment": name, "spec_hash": key, "spec_yaml": f"name: {name}", "sweep": SWEEP, "swept": swept}
        run = {
            "run_id": f"run-{key}", "experiment": name, "spec_hash": key, "stage": "train", "key": key, "status": "done",
            "started_at": "2026-01-01T00:00:00+00:00", "seconds": 60.0 + l0, "device": "cpu",
        }  # fmt: skip
        yield key, tables, experiment | {"created_at": "2025-01-01T00:00:00+00:00"}, run


def build(root):
    """The database of the made-up experiment, in folder `root`; one training goes on."""
    path = root / "cltdb.duckdb"
    artifacts = {
        "model-key": of.model("toy", WORDS, architecture="gpt2", n_layers=N_LAYERS, d_model=8),
        "train-key": (trained := dictionary_tables(DICT, "clt", scale=1.0))
        | {"metrics": trained["metrics"] + compared_labels.label_metrics(DICT)},
        "other-key": dictionary_tables(OTHER_DICT, "plt", scale=1.7),
        "harvest-key": {**harvest_tables(), "feature_edges": edge_table()},
        "explain-key": explain_tables(),
        "attribute-key": (france := graph_tables()) | path_tables(france),
        "attribute-other-key": graph_tables(SECOND_GRAPH, n_per_cell=9),
        "intervention-key": intervention_tables(),
        "evaluate-key": {"isolation": list(isolation_rows())},
        "groups-key": compared_labels.tables(DICT, OTHER_DICT, N_LAYERS),
    }
    points = list(sweep_points())
    artifacts |= {key: tables for key, tables, _, _ in points}
    curves = dictionary_tables(IN_TRAINING, "clt", scale=1.2)["metrics"]
    made = [of.write_artifact(root, key, tables) for key, tables in artifacts.items()]
    training = {"metrics": [row for row in curves if row["stage"] == "train"]}
    load_artifacts(path, [*made, of.write_artifact(root, "unfinished-key", training, started_at=None)])
    spec = {"experiment": "toy", "spec_hash": "0a1b2c3d4e", "spec_yaml": "name: toy", "created_at": "2026-01-01T00:00:00+00:00"}
    running = {
        "run_id": "run-unfinished", "experiment": "zoo", "spec_hash": "running", "stage": "train", "key": "unfinished-key",
        "status": "running", "started_at": "2025-01-01T00:00:00+00:00", "error": HOSTILE,
    }  # fmt: skip
    save_records(
        path,
        experiments=[spec, *(experiment for _, _, experiment, _ in points)],
        stage_runs=[*stage_runs(), running, *(run for _, _, _, run in points)],
    )
    return path
