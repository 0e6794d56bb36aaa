"""Influence: what share of a graph's answer goes through each node and edge.

A row's sum includes the weights of its dropped edges. So a stored edge has the same share as in the whole graph.
Source: Anthropic, "Circuit Tracing" (2025), appendix on pruning.
"""

import numpy as np

from cltdb.graphs.adjacency import MIN_ROW_SUM, of_nodes

KEPT_SHARES = 2**24
"""Edges up to which `Shares` keeps them all: 128 MiB."""


class Shares:
    """S [n_nodes, n_nodes]: |weight| of each edge divided by the sum of its target's row, dropped edges included. For graphs of
    more than KEPT_SHARES edges the shares are computed anew each time, to save memory."""

    def __init__(self, adjacency):
        self.adjacency, self._kept = adjacency, None
        self.per_weight = 1 / np.maximum(adjacency.input_mass, MIN_ROW_SUM)
        if len(adjacency) <= KEPT_SHARES:
            self._kept = self._of(slice(None))

    def _of(self, edges):
        return np.abs(self.adjacency.weight[edges]) * of_nodes(self.per_weight, self.adjacency.target[edges])

    def of_edges(self, edges=slice(None)):
        """The shares [n_edges] float64 of all edges, or of a slice of them."""
        return self._of(edges) if self._kept is None else self._kept[edges]

    def from_sources(self, mask):
        """The share of each node's input that comes from the nodes of mask [n_nodes]: [n_nodes]."""
        source = self.adjacency.source
        return self.adjacency.by_target(lambda edges: self.of_edges(edges) * of_nodes(mask, source[edges]))

    def to_sources(self, values, rows=None):
        """values S [n_nodes], of values [n_nodes]: what each node gets from its targets, or only from those in slice `rows`."""
        target = self.adjacency.target
        return self.adjacency.by_source(lambda edges: self.of_edges(edges) * of_nodes(values, target[edges]), rows)


def influence(shares, logit_weights):
    """The influence w^T B of every node [n_nodes], with B = S + S^2 + …, `Shares` S and logit_weights w [n_nodes]. The sum is
    finite because a graph has no cycles.

    One pass over the edges, from the logits back: when a block is reached, its targets have all their influence already. The slow
    twin is a matrix inverse: B = (I - S)^-1 - I.
    """
    total = np.zeros(len(logit_weights))
    for rows in shares.adjacency.blocks:
        total += shares.to_sources(total + logit_weights, rows)
    return total


def edge_influence(shares, logit_weights):
    """The influence of every edge [n_edges]: its share times its target's influence plus logit weight."""
    return shares.of_edges() * shares.adjacency.at_target(influence(shares, logit_weights) + logit_weights)
