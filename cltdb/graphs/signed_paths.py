"""The strongest paths from a graph's inputs to a target, with the sign of what they do.

A path starts at an input (an embedding, an error, or a feature whose incoming edges were not computed), goes through features and ends
at a target. Its weight is its part in the target's pre-activation: the weight of its first edge, times that of each further edge per unit
of activation of the feature it leaves. The weights of all paths to a target, of any length, sum to its pre-activation less the biases:
its own, and those of the features below it, as the edges carry them on.
"""

import heapq
from typing import NamedTuple

import numpy as np

from cltdb.graphs.adjacency import BLOCK_EDGES, of_nodes

SIGNS = ("both", "positive", "negative")


class SignedPath(NamedTuple):
    """weight: its part in the target's pre-activation. share: |weight| over the sum of |weight| of all paths to the target, longer ones
    and those of the other sign too; what the shares of some paths lack to 1 is what they leave out. nodes: ids from input to target."""

    weight: float
    share: float
    nodes: tuple


class SignedPaths:
    """Paths of at most `max_length` edges of one sign (`SIGNS`) through an `Adjacency`. activations [n_nodes], above 0 for features;
    is_input [n_nodes]: where paths start, which may be nodes without incoming edges only."""

    def __init__(self, adjacency, activations, is_input, *, max_length, sign="both"):
        self.adjacency, self.is_input, self.max_length, self.sign = adjacency, is_input, max_length, sign
        self.gain = np.divide(1, activations, out=np.zeros(len(is_input)), where=activations > 0)
        self.gain[is_input] = 1
        self.reach = self._reach()
        self.mass = self._mass()

    def to(self, target, n):
        """The `n` strongest `SignedPath`s to node `target`, the strongest first, equal ones by their nodes; fewer where there are fewer.

        Best first, from the target back: what is known of a path is bound by the strongest that can be before it, so that the first
        complete ones are the strongest. The slow twin lists all paths.
        """
        heap, found = [(0.0, (target,), 1.0)], []
        while heap and len(found) < n:
            _, nodes, weight = heapq.heappop(heap)
            if self.is_input[nodes[0]]:
                found.append(SignedPath(weight, min(1.0, abs(weight) / float(self.mass[target])), nodes))
            elif len(nodes) <= self.max_length:
                for longer in self._before(nodes, weight, n):
                    heapq.heappush(heap, longer)
        return sorted(found, key=lambda path: (-abs(path.weight), path.nodes))

    def _before(self, nodes, weight, n):
        """The end of a path `nodes`, with its weight per unit of its first node, made longer at its beginning in the `n` best ways: entries of
        the heap."""
        row = self.adjacency.edges_into(slice(nodes[0], nodes[0] + 1))
        source = self.adjacency.source[row].astype(np.int64)
        weights = weight * self.adjacency.weight[row].astype(float) * self.gain[source]
        reach = self.reach[min(self.max_length - len(nodes), len(self.reach) - 1)]
        signs = (self.sign == "negative") ^ (weights < 0) if len(reach) > 1 else np.zeros(len(source), dtype=bool)
        bounds = np.abs(weights) * reach[signs.astype(int), source]
        best = np.flatnonzero(bounds)
        if len(best) > n:
            best = best[np.argpartition(-bounds[best], n - 1)[:n]]
        for place in best.tolist():
            yield -float(bounds[place]), (int(source[place]), *nodes), float(weights[place])

    def _reach(self):
        """[length][sign (0: positive), node]: |weight| of the strongest path into a node of at most `length` edges; an input's is 1. Without
        a sign asked for there is one row, for both. Ends where longer ones add nothing."""
        start = np.zeros((1 if self.sign == "both" else 2, len(self.is_input)))
        start[0, self.is_input] = 1
        reach = [start]
        while len(reach) <= self.max_length:
            longer = self._one_longer(reach[-1])
            if np.array_equal(longer, reach[-1]):
                break
            reach.append(longer)
        return reach

    def _one_longer(self, reach):
        adjacency, per_unit, longer = self.adjacency, reach * self.gain, np.zeros_like(reach)
        longer[:, self.is_input] = reach[:, self.is_input]
        for rows in self._row_blocks():
            edges = adjacency.edges_into(rows)
            begins = adjacency.offsets[rows.start : rows.stop + 1] - edges.start
            has_row = np.flatnonzero(np.diff(begins))
            if not len(has_row):
                continue
            weight, source = np.abs(adjacency.weight[edges]), adjacency.source[edges]
            flips = adjacency.weight[edges] < 0 if len(reach) > 1 else None
            for place, into in enumerate(longer):
                best = of_nodes(per_unit[place], source)
                if flips is not None:
                    best = np.where(flips, of_nodes(per_unit[1 - place], source), best)
                into[rows.start + has_row] = np.maximum.reduceat(best * weight, begins[has_row])
        return longer

    def _row_blocks(self):
        """Slices of rows of about BLOCK_EDGES edges each."""
        offsets, start = self.adjacency.offsets, 0
        while start < self.adjacency.n_nodes:
            stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + BLOCK_EDGES, side="right")) - 1)
            yield slice(start, stop)
            start = stop

    def _mass(self):
        """The sum of |weight| over all paths into a node, of any length, per node [n_nodes]; an input's is 1."""
        adjacency, mass = self.adjacency, self.is_input.astype(float)
        for rows in reversed(adjacency.blocks):
            per_unit = mass * self.gain
            mass += adjacency.by_target(
                lambda edges, x=per_unit: np.abs(adjacency.weight[edges]) * of_nodes(x, adjacency.source[edges]), rows
            )
        return mass
