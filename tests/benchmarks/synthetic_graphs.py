"""What stage attribute writes of one prompt: a random graph with true influence and pruning, its strongest paths, ablations, groups of features."""

from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl

from cltdb.graphs.adjacency import Adjacency
from cltdb.graphs.influence import Shares, edge_influence, influence
from cltdb.graphs.paths import path_lengths
from cltdb.graphs.pruning import prune
from cltdb.graphs.signed_paths import SignedPaths

KEEP, SWEEP = (0.8, 0.98), (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
N_TOKENS, N_LOGITS, N_CHECKED, N_ABLATIONS = 16, 5, 200, 5
N_PATHS, LONGEST_PATH, N_HEADS = 20, 6, 12  # paths to a target
MADE = datetime(2026, 11, 1, 12)
KINDS = ["feature", "error", "embedding", "logit"]


def graph_tables(graph_id, facts, *, text, traits, n_features, n_edges, rng):
    """{table: columns} of a graph on a passage of the text; facts: further columns of table graphs."""
    tokens, nodes = _nodes(text, traits, n_features, rng)
    source, target, weight = _edges(nodes, n_edges, rng)
    n = len(nodes["kind"])
    adjacency = Adjacency.of_rows(n, source, target, weight, np.zeros(n))
    logit_weights, kind = nodes["probability"], nodes["kind"]
    shares = Shares(adjacency)
    strength = influence(shares, logit_weights)
    parts = {"is_inner": kind == 0, "is_source": kind == 1, "node_influence": strength}
    kept = prune(adjacency, logit_weights, node_threshold=KEEP[0], edge_threshold=KEEP[1], **parts)
    nodes_kept = np.flatnonzero(kept.nodes & (kind == 0))
    measured = np.full(len(source), np.nan)
    checked = rng.permutation(len(source))[:N_CHECKED]
    measured[checked] = weight[checked] * (1 + 1e-6 * rng.standard_normal(len(checked)))
    lengths = path_lengths(shares, logit_weights, kind >= 1)
    is_feature, is_logit, of_graph = kind == 0, kind == 3, {"graph_id": [graph_id] * n}
    completeness, replacement = np.sort(rng.uniform(0.4, 0.98, 2))[::-1]
    activation = np.where(is_feature, rng.lognormal(0.5, 0.6, n), np.nan)
    pre_activation = np.where(is_logit, rng.normal(10, 3, n), activation)
    interventions, effects = _ablations(graph_id, facts, tokens, nodes, nodes_kept, pre_activation, rng)
    walks = SignedPaths(adjacency, np.where(is_feature, activation, 0), (kind == 1) | (kind == 2), max_length=LONGEST_PATH)
    paths, steps = _paths(graph_id, walks, np.flatnonzero(is_logit).tolist(), nodes, rng)
    return {
        "graphs": {
            **{name: [value] for name, value in facts.items()},
            "graph_id": [graph_id],
            "tokens": [tokens.tolist()],
            "n_nodes": [n],
            "n_edges": [len(source)],
            "n_features_active": [n_features],
            "node_threshold": [KEEP[0]],
            "edge_threshold": [KEEP[1]],
            "replacement_score": [replacement],
            "completeness_score": [completeness],
            "pruned_replacement_score": [KEEP[0] * replacement],
            "pruned_completeness_score": [KEEP[0] * completeness],
            "error_share": [float(strength[kind == 1].sum() / strength.sum())],
            "mean_path_length": [float((lengths * np.arange(1, len(lengths) + 1)).sum())],
            "n_ablations": [N_ABLATIONS],
            "ablation_spearman": [rng.uniform(0.3, 0.9)],
            "max_abs_error": [rng.uniform(0, 1e-5)],
            "seconds": [rng.lognormal(1, 0.5)],
        },
        "nodes": {
            **of_graph,
            "node_id": np.arange(n),
            "kind": [KINDS[number] for number in kind],
            **{name: pl.Series(nodes[name]).set(pl.Series(nodes[name] < 0), None) for name in ("layer", "position", "feature")},
            "token": pl.Series(nodes["token"]).set(pl.Series(nodes["token"] < 0), None),
            "activation": _known(activation),
            "pre_activation": _known(pre_activation),
            "bias": _known(pre_activation - np.bincount(target, weight, minlength=n)),
            "influence": strength,
            "probability": _known(np.where(is_logit, logit_weights, np.nan)),
            "expanded": is_feature | is_logit,
            "dropped_mass": np.zeros(n),
            "kept": kept.nodes,
        },
        "prune_curves": {
            "graph_id": [graph_id] * len(SWEEP),
            "node_threshold": list(SWEEP),
            "edge_threshold": [KEEP[1]] * len(SWEEP),
            "n_nodes": [min(n, max(1, int(kept.nodes.sum() * (share / KEEP[0]) ** 4))) for share in SWEEP],
            "n_edges": [min(kept.edges.size, max(1, int(kept.edges.sum() * (share / KEEP[0]) ** 6))) for share in SWEEP],
            "replacement_score": [replacement * share for share in SWEEP],
            "completeness_score": [completeness * share for share in SWEEP],
        },
        "path_lengths": {
            "graph_id": [graph_id] * len(lengths),
            "length": np.arange(1, len(lengths) + 1),
            "share": lengths,
        },
        "paths": paths,
        "path_steps": steps,
        "supernodes": _supernodes(graph_id, nodes_kept),
        "interventions": interventions,
        "intervention_effects": effects,
        "edges": {
            "graph_id": [graph_id] * len(source),
            "source_id": source,
            "target_id": target,
            "weight": weight,
            "influence": edge_influence(shares, logit_weights),
            "kept": kept.edges,
            "measured": _known(measured),
        },
    }


def _known(values):
    return pl.Series(values).fill_nan(None)


def _nodes(text, traits, n_features, rng):
    """(tokens of the prompt, {column: values} of the nodes in their order); -1: has none. Some features are in many graphs."""
    row = text.tokens[rng.integers(0, len(text.tokens))]
    tokens = row[:N_TOKENS]
    n_layers, per_layer = traits.count.shape
    layer = rng.integers(0, n_layers, 2 * n_features)
    feature = (per_layer * rng.random(2 * n_features) ** 3).astype(np.int64)
    position = rng.integers(1, N_TOKENS, 2 * n_features)
    live = traits.count[layer, feature] > 0
    places = np.unique(np.stack([layer, position, feature])[:, live], axis=1)
    layer, position, feature = places[:, np.sort(rng.permutation(places.shape[1])[:n_features])]
    error_layer, error_position = (part.ravel() for part in np.indices((n_layers, N_TOKENS - 1)))
    counts = [len(layer), len(error_layer), N_TOKENS, N_LOGITS]
    none = [np.full(count, -1) for count in counts]
    probability = np.zeros(sum(counts))
    probability[-N_LOGITS:] = np.sort(rng.dirichlet(np.full(N_LOGITS + 1, 0.5))[:N_LOGITS])[::-1]
    return tokens, {
        "kind": np.repeat(np.arange(4), counts),
        "layer": np.concatenate([layer, error_layer, none[2], none[3]]),
        "position": np.concatenate([position, error_position + 1, np.arange(N_TOKENS), np.full(N_LOGITS, N_TOKENS - 1)]),
        "feature": np.concatenate([feature, none[1], none[2], none[3]]),
        "token": np.concatenate([none[0], none[1], tokens, rng.permutation(np.unique(text.tokens))[:N_LOGITS]]),
        "probability": probability,
    }


def _edges(nodes, n_edges, rng):
    """(source, target, weight), ordered by target and source: from earlier to later layers, never back to an earlier position."""
    kind, n = nodes["kind"], len(nodes["kind"])
    depth = np.where(kind == 2, -1, np.where(kind == 3, nodes["layer"].max() + 1, nodes["layer"]))
    targets = np.flatnonzero((kind == 0) | (kind == 3))
    target = rng.choice(targets, 5 * n_edges)
    source = rng.integers(0, n, 5 * n_edges)
    fits = (depth[source] < depth[target]) & (nodes["position"][source] <= nodes["position"][target]) & (kind[source] < 3)
    flat = np.unique((target * n + source)[fits])
    target, source = np.divmod(flat[np.sort(rng.permutation(len(flat))[:n_edges])], n)
    return source.astype(np.int32), target.astype(np.int32), rng.standard_normal(len(source)) ** 3


def _paths(graph_id, walks, targets, nodes, rng):
    """(columns of table paths, columns of table path_steps): the strongest paths to each target, each step along the residual stream, through a
    head, and the rest."""
    rows, steps = [], []
    for target in targets:
        for rank, path in enumerate(walks.to(target, N_PATHS), start=1):
            row = {
                "graph_id": graph_id,
                "path_id": len(rows),
                "rank": rank,
                "target_id": target,
                "weight": path.weight,
                "share": path.share,
            }
            for step, (source, end) in enumerate(pairwise(path.nodes)):
                edge = walks.adjacency.weight[walks.adjacency.places([(source, end)])][0]
                factor = 1 / walks.gain[source] if walks.gain[source] else 1.0
                head = f"L{rng.integers(0, max(1, nodes['layer'][end]) + 1)}H{rng.integers(N_HEADS)}"
                position = int(nodes["position"][source])
                routes = zip(
                    ("residual", head, "others"),
                    (None, head, None),
                    (None, position, None),
                    rng.dirichlet([2, 1, 1]),
                    strict=True,
                )
                for via, last, reads, part in routes:
                    about = {
                        "graph_id": graph_id,
                        "path_id": len(rows),
                        "step": step,
                        "source_id": source,
                        "target_id": end,
                        "via": via,
                    }
                    factors = {"input_factor": float(factor), "weight_factor": float(edge * part / factor)}
                    steps.append(about | {"head": last, "source_position": reads} | factors)
            rows.append(row)
    return tuple({name: [row[name] for row in part] for name in part[0]} if part else {} for part in (rows, steps))


def _supernodes(graph_id, nodes_kept):
    groups = [group.tolist() for group in np.array_split(nodes_kept, max(1, len(nodes_kept) // 3)) if len(group)]
    names = [f"{graph_id}-s{number}" for number in range(len(groups))]
    return {
        "supernode_id": names,
        "graph_id": [graph_id] * len(groups),
        "name": [f"group {number}" for number in range(len(groups))],
        "node_ids": groups,
        "created_at": [MADE] * len(groups),
    }


def _ablations(graph_id, facts, tokens, nodes, nodes_kept, pre_activation, rng):
    """(columns of table interventions, columns of intervention_effects): some kept features set to 0, in two modes."""
    rows, effects = [], []
    for node in rng.permutation(nodes_kept)[:N_ABLATIONS].tolist():
        layer, feature, position = (int(nodes[name][node]) for name in ("layer", "feature", "position"))
        for mode in ("iterative", "free"):
            name = f"{graph_id}-ablate-{layer}-{feature}-{position}" + ("-free" if mode == "free" else "")
            setting = {"layer": layer, "feature": feature, "position": position, "operation": "set", "value": 0.0}
            prompt = {key: facts[key] for key in ("dict_id", "model_id", "prompt")}
            row = {"intervention_id": name, "graph_id": graph_id, **prompt, "tokens": tokens.tolist(), "mode": mode}
            rows.append(row | {"until_layer": None, "settings": [setting], "created_at": MADE})
            of_node = {"intervention_id": name, "kind": "feature", "layer": layer, "position": position, "feature": feature}
            effects.append(of_node | {"token": None, "before": pre_activation[node], "after": 0.0, "predicted": 0.0})
            for token, before in zip(nodes["token"][-N_LOGITS:].tolist(), pre_activation[-N_LOGITS:].tolist(), strict=True):
                less = rng.exponential()
                of_logit = {"kind": "logit", "layer": None, "position": N_TOKENS - 1, "feature": None, "token": token}
                values = {"before": before, "after": before - less, "predicted": before - less * rng.uniform(0.7, 1.3)}
                effects.append({"intervention_id": name, **of_logit, **values})
    return tuple({name: [row[name] for row in part] for name in part[0]} if part else {} for part in (rows, effects))
