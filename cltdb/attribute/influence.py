"""Influence, pruning and scores: pure functions of the adjacency matrix (rows targets, columns sources).

Source: Anthropic, "Circuit Tracing" (2025), appendix on pruning; thresholds and scores as circuit-tracer's
`find_threshold`, `prune_graph` and `compute_graph_scores`, with masks of nodes in place of offsets. A feature whose
incoming edges were not computed plays the part of an error.
"""

from typing import NamedTuple

import torch

from cltdb.errors import CltdbError

MIN_ROW_SUM = 1e-10  # below this a row counts as without input, as in circuit-tracer


class Scores(NamedTuple):
    """replacement: share of the influence of embeddings and errors that enters at embeddings. completeness: share of
    the nodes' input, weighted by their influence, that is not error."""

    replacement: float
    completeness: float


class Kept(NamedTuple):
    """What pruning leaves: nodes [n_nodes] and edges [n_nodes, n_nodes], boolean."""

    nodes: torch.Tensor
    edges: torch.Tensor


def normalized(adjacency):
    """|adjacency| with rows that sum to 1; rows without input stay 0."""
    shares = adjacency.abs()
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=MIN_ROW_SUM)


def influence(shares, logit_weights):
    """w^T B with B = shares + shares^2 + …, finite because a graph has no cycles: shares and logit_weights [n_nodes] to
    [n_nodes].

    The slow twin is a matrix inverse: B = (I - shares)^-1 - I.
    """
    total = torch.zeros_like(logit_weights)
    step = logit_weights @ shares
    for _ in range(len(logit_weights) + 1):
        if not bool(step.any()):
            return total
        total += step
        step = step @ shares
    raise AssertionError("an adjacency matrix with a cycle")


def edge_influence(shares, logit_weights):
    """Normalised weight times the influence of the target, whose own logit weight counts too: [n_nodes, n_nodes]."""
    return shares * (influence(shares, logit_weights) + logit_weights)[:, None]


def find_threshold(scores, threshold):
    """The smallest score to keep so that the kept ones make up at least `threshold` of the sum."""
    ordered = scores.sort(descending=True).values
    cumulative = ordered.cumsum(0) / ordered.sum()
    index = int(torch.searchsorted(cumulative, threshold))
    return ordered[min(index, len(ordered) - 1)]


def prune(adjacency, logit_weights, *, is_inner, is_source, node_threshold, edge_threshold):
    """Nodes that make up `node_threshold` of the influence, of their edges those that make up `edge_threshold`, without
    loose ends.

    is_inner: features, which need a kept edge in and out. is_source: errors, which need one out. The others are always
    kept.
    """
    for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
        if not 0 <= value <= 1:
            raise CltdbError(f"attribute.{name}", found=value, expected="a share between 0 and 1", do="mend it")
    node_influence = influence(normalized(adjacency), logit_weights)
    nodes = (node_influence >= find_threshold(node_influence, node_threshold)) | ~(is_inner | is_source)
    shares = normalized(adjacency * nodes[:, None] * nodes[None, :])
    scores = edge_influence(shares, logit_weights)
    edges = scores >= find_threshold(scores.flatten(), edge_threshold)
    while True:
        loose = ((is_inner | is_source) & ~edges.any(0)) | (is_inner & ~edges.any(1))
        remaining = nodes & ~loose
        if bool((remaining == nodes).all()):
            break
        nodes = remaining
        edges = edges & nodes[:, None] & nodes[None, :]
    return Kept(nodes, edges & nodes[:, None] & nodes[None, :] & (adjacency != 0))


def scores(adjacency, logit_weights, *, is_error, is_embedding):
    """Replacement and completeness score of a graph."""
    shares = normalized(adjacency)
    node_influence = influence(shares, logit_weights)
    from_embeddings, from_errors = node_influence[is_embedding].sum(), node_influence[is_error].sum()
    weight = node_influence + logit_weights
    completeness = ((1 - shares[:, is_error].sum(1)) * weight).sum() / weight.sum()
    return Scores(float(from_embeddings / (from_embeddings + from_errors)), float(completeness))


def pruned_scores(adjacency, logit_weights, kept, *, is_error, is_embedding):
    """The scores of a pruned graph in which everything pruned away counts as error: one more error node takes the
    weight of all cut edges."""
    inside = adjacency.abs() * kept.edges
    cut = (adjacency.abs().sum(1) - inside.sum(1)) * kept.nodes
    booked = torch.nn.functional.pad(inside, (0, 1, 0, 1))
    booked[:-1, -1] = cut.clamp(min=0)
    yes, no = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    return scores(
        booked,
        torch.nn.functional.pad(logit_weights, (0, 1)),
        is_error=torch.cat([is_error, yes]),
        is_embedding=torch.cat([is_embedding, no]),
    )


def total_effects(adjacency, activations, source, change):
    """What a change of one feature's activation does to every node along all paths, were the features' on and off to
    stay: [n_nodes].

    activations [n_nodes] are 0 for all but features: the other nodes have no inputs or no outputs. The source itself is
    held.
    """
    per_unit = adjacency * torch.where(activations == 0, 0, 1 / activations)
    effects = torch.zeros_like(activations)
    step = per_unit[:, source] * change
    while bool(step.any()):
        effects += step
        step = per_unit @ step
    return effects
