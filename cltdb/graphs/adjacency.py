"""The edges of a graph by target: its adjacency matrix (rows targets, columns sources) in compressed rows.

Memory grows with the number of edges, not with the square of the number of nodes; edges are read in blocks. Some edges of a row
may be missing: `dropped` has the sum of their absolute weights.
"""

from functools import cached_property

import numpy as np

BLOCK_EDGES = 2**20  # what sums over edges hold at once
MIN_ROW_SUM = 1e-10  # below this a row counts as without input, as in circuit-tracer


class Adjacency:
    """source [n_edges] int32 and weight [n_edges], row after row, sources rising within a row. offsets [n_nodes + 1] int64: where
    each row begins. dropped [n_nodes] float64: the sum of the absolute weights of a node's incoming edges that are not here."""

    def __init__(self, offsets, source, weight, dropped):
        self.offsets, self.source, self.weight, self.dropped = offsets, source, weight, dropped

    @classmethod
    def of_dense(cls, matrix):
        """The edges are the entries of a matrix [n_nodes, n_nodes] that are not 0."""
        target, source = np.nonzero(matrix)
        return cls.of_rows(len(matrix), source.astype(np.int32), target, matrix[target, source], np.zeros(len(matrix)))

    @classmethod
    def of_rows(cls, n_nodes, source, target, weight, dropped):
        """source, target, weight [n_edges], ordered by target and source."""
        return cls(np.searchsorted(target, np.arange(n_nodes + 1, dtype=target.dtype)), source, weight, dropped)

    n_nodes = property(lambda self: len(self.offsets) - 1)

    def __len__(self):
        return len(self.source)

    @cached_property
    def target(self):
        """[n_edges] int32."""
        return self.at_target(np.arange(self.n_nodes, dtype=np.int32))

    def dense(self):
        """[n_nodes, n_nodes]."""
        matrix = np.zeros((self.n_nodes, self.n_nodes), self.weight.dtype)
        matrix[self.target, self.source] = self.weight
        return matrix

    @cached_property
    def blocks(self):
        """Slices of rows that hold all edges, the last rows first. No row of a block is a source of another row in it, and all
        targets of its rows stand in the blocks before. So one pass over the blocks follows all paths backwards."""
        has_row = np.diff(self.offsets) > 0
        rows = np.flatnonzero(has_row)
        after_sources = np.zeros(self.n_nodes, dtype=np.int64)  # of each row: one more than its last source that has a row itself
        if len(rows):
            with_rows = (self.source + 1) * self.at_source(has_row)
            after_sources[rows] = np.maximum.reduceat(with_rows, self.offsets[rows])
        blocks, stop = [], self.n_nodes
        while len(left := rows[: np.searchsorted(rows, stop)]):
            stop = int(left[-1]) + 1
            start = int(after_sources[stop - 1])
            while (needed := int(after_sources[start:stop].max(initial=0))) > start:
                start = needed
            assert start < stop, "an adjacency matrix with a cycle"
            blocks.append(slice(start, stop))
            stop = start
        return blocks

    def edges_into(self, rows):
        """The slice of the edges into a slice of rows."""
        return slice(int(self.offsets[rows.start]), int(self.offsets[rows.stop]))

    def at_source(self, values):
        """The value of each edge's source [n_edges], of values [n_nodes]."""
        found = np.empty(len(self), values.dtype)
        for edges in _blocks(slice(0, len(self))):
            found[edges] = of_nodes(values, self.source[edges])
        return found

    def at_target(self, values):
        """The value of each edge's target [n_edges], of values [n_nodes]."""
        return np.repeat(values, np.diff(self.offsets))

    def by_target(self, values, rows=None):
        """The sum of a value over each node's incoming edges [n_nodes] float64. values(edges): the values of a slice of the
        edges.
        rows: only edges into this slice of the nodes count."""
        return self._sums(self.target, values, rows)

    def by_source(self, values, rows=None):
        """As `by_target`, over each node's outgoing edges."""
        return self._sums(self.source, values, rows)

    def _sums(self, ends, values, rows):
        total = np.zeros(self.n_nodes)
        for edges in _blocks(slice(0, len(self)) if rows is None else self.edges_into(rows)):
            total += np.bincount(ends[edges].astype(np.int64), values(edges), minlength=self.n_nodes)
        return total

    @property
    def input_mass(self):
        """The sum of the absolute weights of each node's incoming edges, dropped ones too [n_nodes] float64."""
        return self.by_target(lambda edges: np.abs(self.weight[edges])) + self.dropped

    def where(self, mask):
        """The edges of mask [n_edges]; the others are dropped."""
        part = self.alone(mask)
        return Adjacency(part.offsets, part.source, part.weight, self.dropped_without(~mask))

    def alone(self, mask):
        """The edges of mask [n_edges] as a graph of their own, of which nothing is dropped."""
        no_dropped = np.zeros(self.n_nodes)
        if mask.all():
            whole = Adjacency(self.offsets, self.source, self.weight, no_dropped)
            whole.target = self.target
            return whole
        return Adjacency(np.searchsorted(np.flatnonzero(mask), self.offsets), self.source[mask], self.weight[mask], no_dropped)

    def degrees(self, mask):
        """How many of the edges of mask [n_edges] leave each node and how many enter it, both [n_nodes]."""
        return tuple(np.bincount(ends[mask], minlength=self.n_nodes) for ends in (self.source, self.target))

    def dropped_without(self, mask):
        """`dropped` as it is once the edges of mask [n_edges] are left out too."""
        return self.dropped + self.by_target(lambda edges: np.abs(self.weight[edges]) * mask[edges])

    def places(self, pairs):
        """The indices [n_pairs] of the edges (source, target) of a list; each must be there."""
        places = []
        for source, target in pairs:
            row = self.edges_into(slice(target, target + 1))
            places.append(row.start + int(np.searchsorted(self.source[row], source)))
            assert places[-1] < row.stop and self.source[places[-1]] == source, "no such edge"
        return np.array(places, dtype=np.int64)


def of_nodes(values, nodes):
    """values[nodes], of nodes [n] int32, in half the time: numpy is slow in turning int32 into int64 while it indexes."""
    return values.take(nodes.astype(np.int64))


def _blocks(edges):
    """A slice of edges in slices of at most BLOCK_EDGES."""
    for first in range(edges.start, edges.stop, BLOCK_EDGES):
        yield slice(first, min(first + BLOCK_EDGES, edges.stop))
