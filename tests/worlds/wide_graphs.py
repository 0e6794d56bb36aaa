"""Graphs as large models give them, of any number of tokens, layers, nodes and edges: most features at few tokens, influence from a few."""

import numpy as np
import polars as pl

from cltdb.database.load import load_artifacts
from cltdb.graphs.adjacency import Adjacency
from cltdb.graphs.influence import Shares, edge_influence, influence
from worlds import tables as of

DICT = "wide-clt-0f0f0f0f"
TEXT = (
    "The capital of the state containing Dallas is the city of Austin , which lies on the Colorado River and was named after Stephen "
    "F. Austin , the father of Texas . Its largest university , founded in 1883 , enrols more than fifty thousand students every year"
).split()
MEANINGS = (
    "capital cities", "names of countries", "say a capital", "Texas cities", "of, before a place", "rivers and lakes of North America",
    "say Austin", "US states", "is, after a capital", "proper nouns", "university names", "commas in lists", "numbers as years",
    "large quantities", "verbs of founding", "say a location", "football terms", "students, pupils", "named after someone", "ancestors",
)  # fmt: skip
ANSWERS = ("Austin", "Dallas", "Houston", "the", "San", "Texas", "a", "El", "Fort", "located")
N_FEATURES = 16_384


def build(root, sizes):
    """A database in folder `root` with a graph for each of `sizes`, {graph_id: {n_tokens, n_layers, n_features, n_edges}}; returns its path."""
    words = sorted({"<bos>", *TEXT, *ANSWERS})
    artifacts = {"model-key": of.model("wide", words, architecture="gpt2", n_layers=26, d_model=8)}
    artifacts["train-key"] = {"dictionaries": [{"dict_id": DICT, "model_id": "wide", "n_layers": 26, "n_features": N_FEATURES}]}
    explained = set()
    for seed, (graph_id, size) in enumerate(sizes.items()):
        tables = graph_tables(graph_id, words, rng=np.random.default_rng(seed), **size)
        nodes = tables["nodes"].filter(kind="feature").select("layer", "feature")
        explained |= set(nodes.unique().rows())
        artifacts[f"{graph_id}-key"] = tables
    artifacts["explain-key"] = {"explanations": [_explanation(*key) for key in sorted(explained) if key[1] % 8]}
    path = root / "cltdb.duckdb"
    load_artifacts(path, [of.write_artifact(root, key, tables) for key, tables in artifacts.items()])
    return path


def _explanation(layer, feature):
    text = MEANINGS[(7 * layer + feature) % len(MEANINGS)]
    key = {"dict_id": DICT, "layer": layer, "feature": feature, "side": "input", "explainer": "rules"}
    return key | {"text": text, "model": "cltdb-rules/v1", "status": "ok", "cost_usd": 0.0}


def graph_tables(graph_id, words, *, n_tokens, n_layers, n_features, n_edges, rng):
    """Tables graphs, nodes and edges."""
    prompt = ["<bos>", *(TEXT[i % len(TEXT)] for i in range(n_tokens - 1))]
    nodes = _nodes(prompt, n_layers, n_features, rng)
    source, target, weight = _edges(nodes, n_layers, n_edges, rng)
    n = nodes["kind"].size
    adjacency = Adjacency.of_rows(n, source, target, weight, np.zeros(n))
    shares = Shares(adjacency)
    known = {name: pl.Series(nodes[name]).set(pl.Series(nodes[name] < 0), None) for name in ("layer", "position", "feature")}
    token = np.full(n, -1)
    token[nodes["kind"] == "embedding"] = [words.index(word) for word in prompt]
    token[nodes["kind"] == "logit"] = [words.index(word) for word in ANSWERS]
    is_logit, is_feature = nodes["kind"] == "logit", nodes["kind"] == "feature"
    frame = pl.DataFrame(
        {
            "graph_id": graph_id,
            "node_id": pl.Series(np.arange(n), dtype=pl.Int32),
            "kind": nodes["kind"].tolist(),
            **known,
            "token": pl.Series(token).set(pl.Series(token < 0), None),
            "activation": pl.Series(np.where(is_feature, rng.lognormal(0.5, 0.6, n), np.nan)).fill_nan(None),
            "influence": influence(shares, nodes["probability"]),
            "probability": pl.Series(np.where(is_logit, nodes["probability"], np.nan)).fill_nan(None),
            "expanded": is_feature | is_logit,
            "dropped_mass": 0.0,
            "kept": True,
        }
    )
    ends = {"graph_id": graph_id, "source_id": source, "target_id": target}
    edges = pl.DataFrame(ends | {"weight": weight, "influence": edge_influence(shares, nodes["probability"]), "kept": True})
    facts = {"graph_id": graph_id, "dict_id": DICT, "model_id": "wide", "prompt": " ".join(prompt[1:]), "n_nodes": n}
    facts |= {
        "tokens": [words.index(word) for word in prompt],
        "n_edges": len(source),
        "node_threshold": 0.8,
        "edge_threshold": 0.98,
    }
    return {"graphs": [facts], "nodes": frame, "edges": edges}


def _nodes(prompt, n_layers, n_features, rng):
    """{column: values}, in the order of nodes; -1: has none. The last tokens and a few others have most of the features."""
    n_tokens = len(prompt)
    crowd = rng.dirichlet(np.full(n_tokens - 1, 0.4))
    crowd[-1] += 0.3
    places = np.stack(
        [
            np.minimum((rng.beta(1.1, 1.3, n_features) * n_layers).astype(int), n_layers - 1),
            1 + rng.choice(n_tokens - 1, n_features, p=crowd / crowd.sum()),
            rng.integers(0, N_FEATURES, n_features),
        ]
    )
    layer, position, feature = np.unique(places, axis=1)
    error_layer, error_position = (part.ravel() for part in np.indices((n_layers, n_tokens - 1)))
    counts = [layer.size, error_layer.size, n_tokens, len(ANSWERS)]
    none = [np.full(count, -1) for count in counts]
    probability = np.zeros(sum(counts))
    probability[-len(ANSWERS) :] = np.sort(rng.dirichlet(np.full(len(ANSWERS) + 1, 0.3))[: len(ANSWERS)])[::-1]
    return {
        "kind": np.repeat(["feature", "error", "embedding", "logit"], counts),
        "layer": np.concatenate([layer, error_layer, none[2], none[3]]),
        "position": np.concatenate([position, error_position + 1, np.arange(n_tokens), np.full(len(ANSWERS), n_tokens - 1)]),
        "feature": np.concatenate([feature, none[1], none[2], none[3]]),
        "probability": probability,
    }


def _edges(nodes, n_layers, n_edges, rng):
    """(source, target, weight) ordered by target and source: forward only, some sources much stronger than others."""
    kind, n = nodes["kind"], nodes["kind"].size
    depth = np.select([kind == "embedding", kind == "logit"], [-1, n_layers], nodes["layer"])
    targets = np.flatnonzero((kind == "feature") | (kind == "logit"))
    strength = rng.lognormal(0, 1.2, n) * np.where(kind == "error", 0.3, 1)
    flat = np.array([], dtype=np.int64)
    while flat.size < n_edges:
        target, source = rng.choice(targets, 4 * n_edges), rng.integers(0, n, 4 * n_edges)
        fits = (depth[source] < depth[target]) & (nodes["position"][source] <= nodes["position"][target])
        more = np.union1d(flat, (target * n + source)[fits])
        if more.size == flat.size or more.size > 0.9 * fits.mean() * targets.size * n:  # nearly all there can be
            flat = more
            break
        flat = more
    target, source = np.divmod(np.sort(rng.permutation(flat)[:n_edges]), n)
    weight = strength[source] * np.abs(rng.standard_normal(source.size)) ** 3 * np.where(rng.random(source.size) < 0.25, -1, 1)
    return source.astype(np.int32), target.astype(np.int32), 0.1 * weight
