"""Paths through a graph: the strongest ones, how long they are, and what changes of features do along them."""

import numpy as np

from cltdb.errors import check_count
from cltdb.graphs.adjacency import of_nodes


def strongest_paths(shares, logit_weights, is_start, node_influence, n):
    """The strongest path to a target from each of the `n` most influential nodes of mask `is_start`, the most influential first:
    [(influence of the start, strength, node ids)].

    A path's strength is the product of its edges' shares and its target's weight. Where several features do the same work, each
    path has only a part of it. Influence counts all paths, so influence gives the order. The slow twin lists all paths (query
    graph_paths).
    """
    check_count("strongest_paths n", n)
    strength, following, adjacency = logit_weights, np.full(len(logit_weights), -1), shares.adjacency
    for rows in adjacency.blocks:
        edges = adjacency.edges_into(rows)
        source, target = adjacency.source[edges].astype(np.int64), adjacency.target[edges]
        through, best = shares.of_edges(edges) * strength[target], strength.copy()
        np.maximum.at(best, source, through)
        found = (through == best[source]) & (through > strength[source])
        following[source[found]] = target[found]
        strength = best
    starts = np.flatnonzero(is_start & (following >= 0))
    order = np.argsort(-node_influence[starts], stable=True)[:n]
    return [(float(node_influence[i]), float(strength[i]), _followed(i, following)) for i in starts[order].tolist()]


def _followed(node, following):
    path = [node]
    while following[path[-1]] >= 0:
        path.append(int(following[path[-1]]))
    return path


def path_lengths(shares, logit_weights, is_end):
    """The share of the influence of the nodes of mask `is_end` that goes along paths of 1, 2, … edges [longest]: the sum of w^T
    S^k over these nodes, divided by its sum over all k. Source: Anthropic, "Circuit Tracing" (2025), appendix on path lengths."""
    step, lengths = logit_weights, []
    while len(reached := np.flatnonzero(step)):
        step = shares.to_sources(step, slice(int(reached[0]), int(reached[-1]) + 1))
        lengths.append(step[is_end].sum())
    lengths = np.array(lengths[:-1])  # the last step reaches nothing
    return lengths / lengths.sum() if lengths.sum() else lengths


def total_effects(adjacency, activations, changes, *, direct=False):
    """What `changes` of features' activations, {node id: change}, do to every node [n_nodes]: along all paths, or along direct
    edges alone.

    The features that are active stay so, the others stay silent, and the changed ones keep their changed values. activations
    [n_nodes] are 0 for all nodes but features: the other nodes have no inputs or no outputs.
    """
    inverse, source = np.divide(1, activations, out=np.zeros_like(activations), where=activations != 0), adjacency.source
    held, by = np.array(list(changes), dtype=np.int64), np.array(list(changes.values()), dtype=float)
    effects = np.zeros_like(activations)
    for rows in reversed(adjacency.blocks):
        per_unit = np.zeros_like(effects) if direct else effects * inverse
        per_unit[held] = by * inverse[held]
        effects += adjacency.by_target(lambda edges, x=per_unit: adjacency.weight[edges] * of_nodes(x, source[edges]), rows)
    return effects


def effects_on(adjacency, activations, target_weights):
    """What each node adds to the weighted targets along all paths, with its sign [n_nodes]: of a feature what they lose when it is set to 0 as in
    `total_effects`, of all features in one pass from the targets back. activations as there; target_weights [n_nodes]."""
    inverse, effects = (
        np.divide(1, activations, out=np.zeros_like(activations), where=activations != 0),
        np.zeros_like(activations),
    )
    for rows in adjacency.blocks:
        per_unit = effects * inverse + target_weights
        effects += adjacency.by_source(
            lambda edges, x=per_unit: adjacency.weight[edges] * of_nodes(x, adjacency.target[edges]), rows
        )
    return effects
