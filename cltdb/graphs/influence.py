"""Influence: what share of a graph's answer goes through each node and edge. Functions of an `Adjacency` (rows targets, columns sources).

Edges that are not stored count in their row's sum, so the shares of the stored ones stay what they are in the whole graph.
Source: Anthropic, "Circuit Tracing" (2025), appendix on pruning.
"""

import numpy as np

from cltdb.graphs.adjacency import MIN_ROW_SUM, of_nodes

KEPT_SHARES = 2**24


class Shares:
    """S [n_nodes, n_nodes]: |weight| of each edge over the sum of its target's row, in which dropped edges count. Of large graphs nothing
    as large as the edges is kept beside them."""

    def __init__(self, adjacency):
        self.adjacency, self._kept = adjacency, None
        self.per_weight = 1 / np.maximum(adjacency.input_mass, MIN_ROW_SUM)
        if len(adjacency) <= KEPT_SHARES:
            self._kept = self._of(slice(None))

    def _of(self, edges):
        return np.abs(self.adjacency.weight[edges]) * of_nodes(self.per_weight, self.adjacency.target[edges])

    def of_edges(self, edges=slice(None)):
        """[n_edges] float64, or of a slice of the edges."""
        return self._of(edges) if self._kept is None else self._kept[edges]

    def from_sources(self, mask):
        """What each row gives to the sources of a mask [n_nodes]: [n_nodes]."""
        source = self.adjacency.source
        return self.adjacency.by_target(lambda edges: self.of_edges(edges) * of_nodes(mask, source[edges]))

    def to_sources(self, values, rows=None):
        """values [n_nodes] S: what each node is given by its targets [n_nodes], by those in the slice `rows` where given."""
        target = self.adjacency.target
        return self.adjacency.by_source(lambda edges: self.of_edges(edges) * of_nodes(values, target[edges]), rows)


def influence(shares, logit_weights):
    """w^T B with B = S + S^2 + …, finite because a graph has no cycles: `Shares` S and logit_weights [n_nodes] to [n_nodes].

    One pass over the edges, from the logits back: a block's targets have all their influence when it is reached. The slow twin is a
    matrix inverse: B = (I - S)^-1 - I.
    """
    total = np.zeros(len(logit_weights))
    for rows in shares.adjacency.blocks:
        total += shares.to_sources(total + logit_weights, rows)
    return total


def edge_influence(shares, logit_weights):
    """Share times the influence of the target, whose own logit weight counts too: [n_edges]."""
    return shares.of_edges() * shares.adjacency.at_target(influence(shares, logit_weights) + logit_weights)
