"""Pruning a graph as it is stored, at any thresholds: a function of its rows alone, which needs no model.

The nodes are those of `influence.prune` on the whole graph, whose influence is stored; edges are chosen among the stored ones.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import torch

from cltdb.attribute import influence
from cltdb.attribute.adjacency import Adjacency


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
    kind, expanded = nodes["kind"], nodes["expanded"].fill_null(False)
    mask = lambda column: torch.from_numpy(column.to_numpy(writable=True))  # noqa: E731
    number = lambda column: torch.from_numpy(column.fill_null(0).cast(float).to_numpy(writable=True))  # noqa: E731
    is_inner = mask((kind == "feature") & expanded)
    is_error = mask(kind == "error") | mask(kind == "feature") & ~is_inner
    logit_weights = number(nodes["probability"])
    adjacency = _adjacency(nodes, edges, dropped=number(nodes["dropped_mass"]))
    kept = influence.prune(
        adjacency,
        logit_weights,
        is_inner=is_inner,
        is_source=is_error,
        node_threshold=node_threshold,
        edge_threshold=edge_threshold,
        node_influence=None if nodes["influence"].is_null().all() else number(nodes["influence"]),
        total_influence=total_influence,
    )
    of_kind = {"is_error": is_error, "is_embedding": mask(kind == "embedding")}
    scores = partial(influence.pruned_scores, adjacency, logit_weights, kept, **of_kind)
    return Subgraph(nodes.filter(kept.nodes.numpy()), edges.filter(kept.edges.numpy()), scores)


def _adjacency(nodes, edges, *, dropped):
    source, target = (torch.from_numpy(edges[end].to_numpy(writable=True)) for end in ("source_id", "target_id"))
    offsets = torch.searchsorted(target, torch.arange(nodes.height + 1, dtype=target.dtype))
    adjacency = Adjacency(offsets, source, torch.from_numpy(edges["weight"].to_numpy(writable=True)), dropped)
    adjacency.target = target
    return adjacency
