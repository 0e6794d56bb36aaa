"""Pruning a graph as it is stored, at any thresholds, and its strongest paths: functions of its rows alone, which need no model.

The nodes are those that `pruning.prune` keeps of the whole graph, since each node's influence there is stored. Edges are chosen
among the stored ones.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from cltdb.graphs import paths
from cltdb.graphs.adjacency import Adjacency
from cltdb.graphs.influence import Shares, influence
from cltdb.graphs.pruning import influential, prune, scores, warn_without_influence


@dataclass(frozen=True)
class Subgraph:
    """Frames of the kept nodes and edges."""

    nodes: object
    edges: object
    _scores: object

    @cached_property
    def scores(self):
        """`pruning.Scores` in which all that was cut counts as error."""
        return self._scores()


def prune_stored(nodes, edges, *, node_threshold, edge_threshold, total_influence=None):
    """The `Subgraph` of the frames of one graph: nodes ordered by node_id, edges by target_id and source_id.

    total_influence: the sum over all nodes of an imported graph, of which only some are stored (column graphs.total_influence).
    Where no node's influence is stored, it is computed from the stored edges.
    """
    is_inner, is_error = _is_inner(nodes), _is_error(nodes)
    logit_weights = _number(nodes["probability"])
    adjacency = _adjacency(nodes, edges)
    known = _node_influence(nodes)
    node_influence = influence(Shares(adjacency), logit_weights) if known is None else known
    warn_without_influence(node_influence)
    kept = prune(
        adjacency,
        logit_weights,
        is_inner=is_inner,
        is_source=is_error,
        node_threshold=node_threshold,
        edge_threshold=edge_threshold,
        node_influence=node_influence,
        total_influence=total_influence,
    )
    return Subgraph(nodes.filter(kept.nodes), edges.filter(kept.edges), partial(part_scores, nodes, edges, kept.edges))


def part_scores(nodes, edges, kept_edges):
    """`pruning.Scores` of the rows of `edges` in mask `kept_edges` [n_edges]; all others count as error."""
    of_kind = {"is_error": _is_error(nodes), "is_embedding": (nodes["kind"] == "embedding").to_numpy()}
    part = _adjacency(nodes, edges).where(np.asarray(kept_edges))
    return scores(part, _number(nodes["probability"]), **of_kind)


def candidates(nodes, node_threshold, *, total_influence=None):
    """Ids [n] of the nodes between which pruning looks for edges: no other edge matters to `prune_stored`. All where no node's influence is
    stored."""
    known = _node_influence(nodes)
    if known is None:
        return nodes["node_id"].to_numpy()
    others = ~(_is_inner(nodes) | _is_error(nodes))
    return nodes["node_id"].to_numpy()[influential(known, node_threshold, total=total_influence) | others]


def _is_inner(nodes):
    """Mask [n_nodes]: features whose incoming edges were computed, other than targets."""
    is_feature, is_target = nodes["kind"] == "feature", nodes["probability"].fill_null(0) > 0
    return (is_feature & nodes["expanded"].fill_null(False) & ~is_target).to_numpy()


def _is_error(nodes):
    """Mask [n_nodes]: errors, and features whose incoming edges were not computed, which play the part of one."""
    return ((nodes["kind"] == "error") | (nodes["kind"] == "feature") & ~nodes["expanded"].fill_null(False)).to_numpy()


def strongest_paths(nodes, edges, n):
    """As `Graph.strongest_paths`, of the frames of a stored graph."""
    shares, logit_weights = Shares(_adjacency(nodes, edges)), _number(nodes["probability"])
    known = _node_influence(nodes)
    node_influence = influence(shares, logit_weights) if known is None else known
    is_start = nodes["kind"].is_in(["embedding", "error"]).to_numpy()
    return paths.strongest_paths(shares, logit_weights, is_start, node_influence, n)


def _node_influence(nodes):
    """Influence [n_nodes] in the whole graph; None where no node's is known."""
    return None if nodes["influence"].is_null().all() else _number(nodes["influence"])


def _number(column):
    """Floats, 0 for NULL."""
    return column.fill_null(0).cast(float).to_numpy()


def _adjacency(nodes, edges):
    source, target, weight = (edges[name].to_numpy() for name in ("source_id", "target_id", "weight"))
    adjacency = Adjacency.of_rows(nodes.height, source, target, weight, _number(nodes["dropped_mass"]))
    adjacency.target = target
    return adjacency
