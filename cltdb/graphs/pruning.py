"""Pruning: the nodes and edges that make up a share of the influence, and what is left of a graph in two scores.

Source: Anthropic, "Circuit Tracing" (2025), appendix on pruning; thresholds and scores as circuit-tracer's `find_threshold`,
`prune_graph` and `compute_graph_scores`, with masks of nodes in place of offsets. A feature whose incoming edges were not
computed plays the part of an error.
"""

import logging
from typing import NamedTuple

import numpy as np

from cltdb.errors import check_share
from cltdb.graphs.influence import Shares, edge_influence, influence

log = logging.getLogger(__name__)


class Scores(NamedTuple):
    """replacement: share of the influence of embeddings and errors that enters at embeddings. completeness: share of
    the nodes' input, weighted by their influence, that is not error. Both are NaN where nothing has influence."""

    replacement: float
    completeness: float


class Kept(NamedTuple):
    """What pruning leaves: nodes [n_nodes] and edges [n_edges], boolean."""

    nodes: np.ndarray
    edges: np.ndarray


def find_threshold(scores, threshold, *, total=None):
    """The smallest score to keep, so that the kept ones make up at least the share `threshold` of `total`, by default of their
    sum.
    At threshold 1 that is the smallest score above 0: rounding of the sum cannot drop any. Where all scores are 0, none is dropped."""
    if not scores.any():
        return 0.0
    if threshold == 1:
        above = scores[scores > 0]
        return float(above.min()) if len(above) else 0.0
    ordered = np.sort(scores)[::-1]
    cumulative = np.cumsum(ordered)
    cumulative /= ordered.sum() if total is None else total
    index = int(np.searchsorted(cumulative, threshold))
    return float(ordered[min(index, len(ordered) - 1)])


def warn_without_influence(node_influence):
    """Says that pruning goes by nothing where no node [n_nodes] has influence."""
    if not node_influence.any():
        log.warning("no node of the graph has influence on what is explained: the thresholds of pruning choose nothing")


def influential(node_influence, threshold, *, total=None):
    """Mask [n_nodes] of the most influential nodes, which make up the share `threshold` of the influence, in sum `total`."""
    return node_influence >= find_threshold(node_influence, threshold, total=total)


def check_thresholds(node_threshold, edge_threshold):
    """CltdbError where one of them is no share."""
    for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
        check_share(f"attribute.{name}", value)


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
    """The nodes that make up the share `node_threshold` of the influence and, of the edges between them, those that make up the
    share `edge_threshold`; then, again and again, nodes without the edges they need are left out.

    is_inner [n_nodes]: features; each needs a kept edge in and a kept edge out. is_source [n_nodes]: errors; each needs one out.
    All other nodes are kept. node_influence [n_nodes]: influence in the whole graph, where it is known. total_influence: its sum,
    where some nodes are missing here.
    """
    check_thresholds(node_threshold, edge_threshold)
    if node_influence is None:
        node_influence = influence(Shares(adjacency), logit_weights)
    nodes = influential(node_influence, node_threshold, total=total_influence) | ~(is_inner | is_source)
    inside = _between(adjacency, nodes)
    if not inside.any():
        return Kept(nodes & ~(is_inner | is_source), inside)
    part = adjacency.alone(inside)
    strength = edge_influence(Shares(part), logit_weights)
    edges = strength >= find_threshold(strength, edge_threshold)
    n_out, n_in = part.degrees(edges)
    while (loose := nodes & ((is_inner | is_source) & (n_out == 0) | is_inner & (n_in == 0))).any():
        nodes &= ~loose
        cut = edges & ~_between(part, nodes)
        edges &= ~cut
        n_out, n_in = (n - less for n, less in zip((n_out, n_in), part.degrees(cut), strict=True))
    inside[inside] = edges
    return Kept(nodes, inside)


def _between(adjacency, nodes):
    """Mask [n_edges] of the edges whose both ends are in mask `nodes`."""
    return adjacency.at_source(nodes) & adjacency.at_target(nodes)


def scores(adjacency, logit_weights, *, is_error, is_embedding):
    """Replacement and completeness score of a graph. Dropped edges count as error, as if they all came from one more error
    node."""
    shares = Shares(adjacency)
    errors, cut = shares.from_sources(is_error), adjacency.dropped * shares.per_weight
    node_influence = influence(shares, logit_weights)
    weight = node_influence + logit_weights
    of_cut = (weight * cut).sum()  # the influence of that error node
    from_errors, from_embeddings = node_influence[is_error].sum() + of_cut, node_influence[is_embedding].sum()
    with np.errstate(invalid="ignore"):
        replacement = from_embeddings / (from_embeddings + from_errors)
        completeness = ((weight * (1 - errors - cut)).sum() + of_cut) / (weight.sum() + of_cut)
    return Scores(float(replacement), float(completeness))


def pruned_scores(adjacency, logit_weights, kept, *, is_error, is_embedding):
    """The scores of a pruned graph, in which everything pruned away is dropped."""
    return scores(adjacency.where(kept.edges), logit_weights, is_error=is_error, is_embedding=is_embedding)
