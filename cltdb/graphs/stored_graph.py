"""Pruning a graph as it is stored, at any thresholds, and its strongest paths: functions of its rows alone, which need no model.

The nodes are those of `influence.prune` on the whole graph, whose influence is stored; edges are chosen among the stored ones.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import torch

from cltdb.graphs import influence
from cltdb.graphs.adjacency import Adjacency


@dataclass(frozen=True)
class Subgraph:
    """Frames of the kept nodes and edges."""

    nodes: object
    edges: object
    _scores: object

    @cached_property
    def scores(self):
        """`influence.Scores` in which all that was cut counts as error."""
        return self._scores()


def prune_stored(nodes, edges, *, node_threshold, edge_threshold, total_influence=None):
    """The `Subgraph` of the frames of one graph: nodes ordered by node_id, edges by target_id and source_id.

    total_influence: of an imported graph (graphs.total_influence), whose file has not all nodes. Where no node's influence is known,
    it is that of the stored edges.
    """
    kind, is_target = nodes["kind"], nodes["probability"].fill_null(0) > 0
    expanded = nodes["expanded"].fill_null(False)
    is_inner = _mask((kind == "feature") & expanded & ~is_target)
    is_error = _mask((kind == "error") | (kind == "feature") & ~expanded)
    logit_weights = _number(nodes["probability"])
    adjacency = _adjacency(nodes, edges)
    kept = influence.prune(
        adjacency,
        logit_weights,
        is_inner=is_inner,
        is_source=is_error,
        node_threshold=node_threshold,
        edge_threshold=edge_threshold,
        node_influence=_node_influence(nodes),
        total_influence=total_influence,
    )
    of_kind = {"is_error": is_error, "is_embedding": _mask(kind == "embedding")}
    scores = partial(influence.pruned_scores, adjacency, logit_weights, kept, **of_kind)
    return Subgraph(nodes.filter(kept.nodes.numpy()), edges.filter(kept.edges.numpy()), scores)


def strongest_paths(nodes, edges, n):
    """As `Graph.strongest_paths`, of the frames of a stored graph."""
    shares, logit_weights = influence.Shares(_adjacency(nodes, edges)), _number(nodes["probability"])
    known = _node_influence(nodes)
    node_influence = influence.influence(shares, logit_weights) if known is None else known
    is_start = _mask(nodes["kind"].is_in(["embedding", "error"]))
    return influence.strongest_paths(shares, logit_weights, is_start, node_influence, n)


def _node_influence(nodes):
    """Influence [n_nodes] in the whole graph; None where no node's is known."""
    return None if nodes["influence"].is_null().all() else _number(nodes["influence"])


def _mask(column):
    return torch.from_numpy(column.to_numpy(writable=True))


def _number(column):
    """Floats, 0 for NULL."""
    return torch.from_numpy(column.fill_null(0).cast(float).to_numpy(writable=True))


def _adjacency(nodes, edges):
    source, target = (torch.from_numpy(edges[end].to_numpy(writable=True)) for end in ("source_id", "target_id"))
    offsets = torch.searchsorted(target, torch.arange(nodes.height + 1, dtype=target.dtype))
    weight = torch.from_numpy(edges["weight"].to_numpy(writable=True))
    adjacency = Adjacency(offsets, source, weight, _number(nodes["dropped_mass"]))
    adjacency.target = target
    return adjacency
