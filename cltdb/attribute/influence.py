"""Influence, pruning and scores: pure functions of an `Adjacency` (rows targets, columns sources).

Source: Anthropic, "Circuit Tracing" (2025), appendix on pruning; thresholds and scores as circuit-tracer's
`find_threshold`, `prune_graph` and `compute_graph_scores`, with masks of nodes in place of offsets. A feature whose
incoming edges were not computed plays the part of an error. Edges that are not stored count in their row's sum, so the shares of the
stored ones stay what they are in the whole graph.
"""

from typing import NamedTuple

import numpy as np
import torch

from cltdb.errors import CltdbError

KEPT_SHARES = 2**24
MIN_ROW_SUM = 1e-10  # below this a row counts as without input, as in circuit-tracer


class Scores(NamedTuple):
    """replacement: share of the influence of embeddings and errors that enters at embeddings. completeness: share of
    the nodes' input, weighted by their influence, that is not error."""

    replacement: float
    completeness: float


class Kept(NamedTuple):
    """What pruning leaves: nodes [n_nodes] and edges [n_edges], boolean."""

    nodes: torch.Tensor
    edges: torch.Tensor


class Shares:
    """S [n_nodes, n_nodes]: |weight| of each edge over the sum of its target's row. among: a mask [n_edges] of the edges that count alone,
    the others' shares being 0. Of large graphs nothing as large as the edges is kept beside them."""

    def __init__(self, adjacency, among=None):
        self.adjacency, self.among = adjacency, among
        sums = adjacency.by_target(self._weights) + (adjacency.dropped if among is None else 0)
        self.per_weight, self._kept = 1 / sums.clamp(min=MIN_ROW_SUM), None
        if len(adjacency) <= KEPT_SHARES:
            self._kept = self._of(slice(None))

    def _weights(self, edges):
        weights = self.adjacency.weight[edges].abs()
        return weights if self.among is None else weights * self.among[edges]

    def _of(self, edges):
        return self._weights(edges) * self.per_weight[self.adjacency.target[edges]]

    def of_edges(self, edges=slice(None)):
        """[n_edges] float64, or of a slice of the edges."""
        return self._of(edges) if self._kept is None else self._kept[edges]

    def back(self, values):
        """values @ S [n_nodes]."""
        target = self.adjacency.target
        return self.adjacency.by_source(lambda edges: self.of_edges(edges) * values[target[edges]], into=values != 0)

    def from_sources(self, mask):
        """What each row gives to the sources of a mask [n_nodes]: [n_nodes]."""
        source = self.adjacency.source
        return self.adjacency.by_target(lambda edges: self.of_edges(edges) * mask[source[edges]])


def influence(shares, logit_weights):
    """w^T B with B = S + S^2 + …, finite because a graph has no cycles: `Shares` S and logit_weights [n_nodes] to [n_nodes].

    The slow twin is a matrix inverse: B = (I - S)^-1 - I.
    """
    total, step = torch.zeros_like(logit_weights), logit_weights
    for _ in range(len(logit_weights) + 1):
        step = shares.back(step)
        if not bool(step.any()):
            return total
        total += step
    raise AssertionError("an adjacency matrix with a cycle")


def edge_influence(shares, logit_weights):
    """Share times the influence of the target, whose own logit weight counts too: [n_edges]."""
    return shares.of_edges() * (influence(shares, logit_weights) + logit_weights)[shares.adjacency.target]


def find_threshold(scores, threshold, *, total=None):
    """The smallest score to keep so that the kept ones make up at least `threshold` of the total, by default their sum."""
    ordered = torch.from_numpy(np.sort(scores.numpy())[::-1].copy())  # several times faster than torch's
    cumulative = ordered.cumsum(0) / (ordered.sum() if total is None else total)
    index = int(torch.searchsorted(cumulative, threshold))
    return ordered[min(index, len(ordered) - 1)]


def prune(
    adjacency,
    logit_weights,
    *,
    is_inner,
    is_source,
    node_threshold,
    edge_threshold,
    node_influence=None,
    total_influence=None,
):
    """Nodes that make up `node_threshold` of the influence, of their edges those that make up `edge_threshold`, without
    loose ends.

    is_inner: features, which need a kept edge in and out. is_source: errors, which need one out. The others are always
    kept. node_influence [n_nodes]: that of the whole graph, where it is known; total_influence: its sum, where nodes are missing.
    """
    for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
        if not 0 <= value <= 1:
            raise CltdbError(f"attribute.{name}", found=value, expected="a share between 0 and 1", do="mend it")
    if node_influence is None:
        node_influence = influence(Shares(adjacency), logit_weights)
    nodes = (node_influence >= find_threshold(node_influence, node_threshold, total=total_influence)) | ~(is_inner | is_source)
    edges = _between(adjacency, nodes)
    if not bool(edges.any()):
        return Kept(nodes & ~(is_inner | is_source), edges)
    scores = edge_influence(Shares(adjacency, among=edges), logit_weights)
    edges &= scores >= find_threshold(scores[edges], edge_threshold)
    while True:
        ends = adjacency.source[edges], adjacency.target[edges]
        has_output, has_input = (torch.zeros_like(nodes).index_fill_(0, end.long(), True) for end in ends)
        loose = ((is_inner | is_source) & ~has_output) | (is_inner & ~has_input)
        remaining = nodes & ~loose
        if bool((remaining == nodes).all()):
            return Kept(nodes, edges)
        nodes = remaining
        edges &= _between(adjacency, nodes)


def _between(adjacency, nodes):
    """Mask [n_edges] of the edges whose both ends are in mask `nodes`."""
    return nodes[adjacency.source] & nodes[adjacency.target]


def scores(adjacency, logit_weights, *, is_error, is_embedding):
    """Replacement and completeness score of a graph."""
    shares = Shares(adjacency)
    errors = shares.from_sources(is_error)
    return _scores(shares, logit_weights, errors, is_error=is_error, is_embedding=is_embedding)


def pruned_scores(adjacency, logit_weights, kept, *, is_error, is_embedding):
    """The scores of a pruned graph in which everything pruned away counts as error: one more error node takes the
    weight of all cut edges."""
    shares = _PrunedShares(adjacency, kept)
    errors = shares.from_sources(is_error)
    return _scores(shares, logit_weights, errors, is_error=is_error, is_embedding=is_embedding, cut=shares.cut)


class _PrunedShares(Shares):
    """The shares of the kept edges in the whole graph's rows; `cut` [n_nodes] is what kept nodes lose."""

    def __init__(self, adjacency, kept):
        super().__init__(adjacency)
        has_input = adjacency.by_target(self._weights) + adjacency.dropped > 0
        self.among = kept.edges
        if self._kept is not None:
            self._kept *= kept.edges
        self.cut = (1 - adjacency.by_target(self.of_edges)).clamp(min=0) * (kept.nodes & has_input)


def _scores(shares, logit_weights, errors, *, is_error, is_embedding, cut=0.0):
    """errors, cut [n_nodes]: the share of each node's input that comes from error nodes, and from one more which is no node."""
    node_influence = influence(shares, logit_weights)
    weight = node_influence + logit_weights
    of_cut = (weight * cut).sum()  # the influence of the error that is no node
    from_errors, from_embeddings = node_influence[is_error].sum() + of_cut, node_influence[is_embedding].sum()
    completeness = ((weight * (1 - errors - cut)).sum() + of_cut) / (weight.sum() + of_cut)
    return Scores(float(from_embeddings / (from_embeddings + from_errors)), float(completeness))


def total_effects(adjacency, activations, source, change):
    """What a change of one feature's activation does to every node along all paths, were the features' on and off to
    stay: [n_nodes].

    activations [n_nodes] are 0 for all but features: the other nodes have no inputs or no outputs. The source itself is
    held.
    """
    inverse, source_of = torch.where(activations == 0, 0, 1 / activations), adjacency.source
    step, effects = torch.zeros_like(activations), torch.zeros_like(activations)
    step[source] = change
    while bool(step.any()):
        per_unit = step * inverse
        step = adjacency.by_target(lambda edges, x=per_unit: adjacency.weight[edges] * x[source_of[edges]])
        effects += step
    return effects
