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
from cltdb.graphs.adjacency import MIN_ROW_SUM

KEPT_SHARES = 2**24


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
    """S [n_nodes, n_nodes]: |weight| of each edge over the sum of its target's row, in which dropped edges count. Of large graphs nothing
    as large as the edges is kept beside them."""

    def __init__(self, adjacency):
        self.adjacency, self._kept = adjacency, None
        self.per_weight = 1 / adjacency.input_mass.clamp(min=MIN_ROW_SUM)
        if len(adjacency) <= KEPT_SHARES:
            self._kept = self._of(slice(None))

    def _of(self, edges):
        return self.adjacency.weight[edges].abs() * self.per_weight.index_select(0, self.adjacency.target[edges])

    def of_edges(self, edges=slice(None)):
        """[n_edges] float64, or of a slice of the edges."""
        return self._of(edges) if self._kept is None else self._kept[edges]

    def from_sources(self, mask):
        """What each row gives to the sources of a mask [n_nodes]: [n_nodes]."""
        source = self.adjacency.source
        return self.adjacency.by_target(lambda edges: self.of_edges(edges) * mask.index_select(0, source[edges]))


def influence(shares, logit_weights):
    """w^T B with B = S + S^2 + …, finite because a graph has no cycles: `Shares` S and logit_weights [n_nodes] to [n_nodes].

    One pass over the edges, from the logits back: a block's targets have all their influence when it is reached. The slow twin is a
    matrix inverse: B = (I - S)^-1 - I.
    """
    total, target = torch.zeros_like(logit_weights), shares.adjacency.target
    for rows in shares.adjacency.blocks:
        flow = total + logit_weights
        total += shares.adjacency.by_source(
            lambda edges, flow=flow: shares.of_edges(edges) * flow.index_select(0, target[edges]), rows
        )
    return total


def strongest_paths(shares, logit_weights, is_start, node_influence, n):
    """The strongest path to a target from each of the `n` most influential nodes of mask `is_start`, the most influential first:
    [(influence of the start, strength, node ids)].

    A path's strength is the product of its edges' shares and its target's weight; it falls with each feature that shares the work,
    while influence counts all paths: that is why it gives the order. The slow twin lists all paths (query graph_paths).
    """
    strength, following = logit_weights.clone(), torch.full((len(logit_weights),), -1)
    adjacency = shares.adjacency
    for rows in adjacency.blocks:
        edges = slice(*adjacency.offsets[[rows.start, rows.stop]].tolist())
        source, target = adjacency.source[edges].long(), adjacency.target[edges].long()
        through = shares.of_edges(edges) * strength[target]
        best = strength.scatter_reduce(0, source, through, "amax")
        found = (through == best[source]) & (through > strength[source])
        following[source[found]] = target[found]
        strength = best
    starts = (is_start & (following >= 0)).nonzero()[:, 0]
    order = node_influence[starts].sort(descending=True, stable=True).indices[:n]
    return [(float(node_influence[i]), float(strength[i]), _followed(i, following)) for i in starts[order].tolist()]


def _followed(node, following):
    path = [node]
    while following[path[-1]] >= 0:
        path.append(int(following[path[-1]]))
    return path


def path_lengths(shares, logit_weights, is_end):
    """How the influence that the nodes of mask `is_end` have reaches the targets: the share of it that goes along paths of 1, 2, … edges
    [longest], (w^T S^k) of these nodes over its sum over k. Source: Anthropic, "Circuit Tracing" (2025), appendix on path lengths."""
    step, target, lengths = logit_weights, shares.adjacency.target, []
    while len(reached := step.nonzero()[:, 0]):
        rows = slice(int(reached[0]), int(reached[-1]) + 1)
        step = shares.adjacency.by_source(lambda edges, x=step: shares.of_edges(edges) * x.index_select(0, target[edges]), rows)
        lengths.append(step[is_end].sum())
    lengths = torch.stack(lengths)[:-1] if len(lengths) > 1 else logit_weights[:0]
    return lengths / lengths.sum() if float(lengths.sum()) else lengths


def edge_influence(shares, logit_weights):
    """Share times the influence of the target, whose own logit weight counts too: [n_edges]."""
    return shares.of_edges() * (influence(shares, logit_weights) + logit_weights).index_select(0, shares.adjacency.target)


def find_threshold(scores, threshold, *, total=None):
    """The smallest score to keep so that the kept ones make up at least `threshold` of the total, by default their sum; at 1 the smallest
    above 0, whatever a sum is rounded to."""
    if threshold == 1:
        above = scores[scores > 0]
        return float(above.min()) if len(above) else 0.0
    ordered = np.sort(scores.numpy())[::-1]  # several times faster than torch's
    cumulative = np.cumsum(ordered)
    cumulative /= ordered.sum() if total is None else total
    index = int(np.searchsorted(cumulative, threshold))
    return float(ordered[min(index, len(ordered) - 1)])


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
    inside = _between(adjacency, nodes)
    if not bool(inside.any()):
        return Kept(nodes & ~(is_inner | is_source), inside)
    part = adjacency.alone(inside)
    strength = edge_influence(Shares(part), logit_weights)
    edges = strength >= find_threshold(strength, edge_threshold)
    n_out, n_in = part.degrees(edges.nonzero()[:, 0])
    while bool((loose := nodes & ((is_inner | is_source) & (n_out == 0) | is_inner & (n_in == 0))).any()):
        nodes &= ~loose
        cut = edges & ~_between(part, nodes)
        edges &= ~cut
        n_out, n_in = (n - less for n, less in zip((n_out, n_in), part.degrees(cut.nonzero()[:, 0]), strict=True))
    return Kept(nodes, inside.masked_scatter(inside, edges))


def _between(adjacency, nodes):
    """Mask [n_edges] of the edges whose both ends are in mask `nodes`."""
    return nodes.index_select(0, adjacency.source) & nodes.index_select(0, adjacency.target)


def scores(adjacency, logit_weights, *, is_error, is_embedding):
    """Replacement and completeness score of a graph in which everything dropped counts as error: one more error node takes its weight."""
    shares = Shares(adjacency)
    errors, cut = shares.from_sources(is_error), adjacency.dropped * shares.per_weight
    node_influence = influence(shares, logit_weights)
    weight = node_influence + logit_weights
    of_cut = (weight * cut).sum()  # the influence of the error that is no node
    from_errors, from_embeddings = node_influence[is_error].sum() + of_cut, node_influence[is_embedding].sum()
    completeness = ((weight * (1 - errors - cut)).sum() + of_cut) / (weight.sum() + of_cut)
    return Scores(float(from_embeddings / (from_embeddings + from_errors)), float(completeness))


def pruned_scores(adjacency, logit_weights, kept, *, is_error, is_embedding):
    """The scores of a pruned graph, in which everything pruned away is dropped."""
    return scores(adjacency.where(kept.edges), logit_weights, is_error=is_error, is_embedding=is_embedding)


def total_effects(adjacency, activations, changes, *, direct=False):
    """What changes of features' activations, {node id: change}, do to every node along all paths, were the features' on and off to stay,
    or along direct edges alone: [n_nodes].

    activations [n_nodes] are 0 for all but features: the other nodes have no inputs or no outputs. The changed features are held.
    """
    inverse, source_of = torch.where(activations == 0, 0, 1 / activations), adjacency.source
    held, by = torch.tensor(list(changes), dtype=torch.int64), torch.tensor(list(changes.values()), dtype=torch.float64)
    effects = torch.zeros_like(activations)
    for rows in reversed(adjacency.blocks):
        per_unit = torch.zeros_like(effects) if direct else effects * inverse
        per_unit[held] = by * inverse[held]
        effects += adjacency.by_target(lambda edges, x=per_unit: adjacency.weight[edges] * x[source_of[edges]], rows)
    return effects
