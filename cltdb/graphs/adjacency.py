"""The edges of a graph by target: the adjacency matrix (rows targets, columns sources) in compressed rows, and how it is collected.

Memory is bounded by the number of edges kept, not by the square of the number of nodes. What is left out of a row is in `dropped`.
"""

from functools import cached_property

import numpy as np
import torch

BLOCK_EDGES = 2**20  # what sums over edges hold at once
MIN_ROW_SUM = 1e-10  # below this a row counts as without input, as in circuit-tracer


class Adjacency:
    """offsets [n_nodes + 1] int64, source [n_edges] int32, rising within a row, weight [n_edges]; dropped [n_nodes] float64: the sum of
    the absolute weights of a node's incoming edges that are not here."""

    def __init__(self, offsets, source, weight, dropped):
        self.offsets, self.source, self.weight, self.dropped = offsets, source, weight, dropped

    @classmethod
    def of_dense(cls, matrix):
        """Of every entry that is not 0."""
        target, source = matrix.nonzero(as_tuple=True)
        offsets = torch.searchsorted(target, torch.arange(len(matrix) + 1))
        return cls(offsets, source.int(), matrix[target, source], torch.zeros(len(matrix), dtype=torch.float64))

    n_nodes = property(lambda self: len(self.offsets) - 1)

    def __len__(self):
        return len(self.source)

    @cached_property
    def target(self):
        """[n_edges] int32."""
        return torch.arange(self.n_nodes, dtype=torch.int32).repeat_interleave(self.offsets.diff())

    def dense(self):
        """[n_nodes, n_nodes]."""
        matrix = self.weight.new_zeros(self.n_nodes, self.n_nodes)
        matrix[self.target.long(), self.source.long()] = self.weight
        return matrix

    @cached_property
    def blocks(self):
        """Slices of rows, from the last to the first, that hold all edges: what a block's rows are reached from has its own rows in
        later blocks only, so that one pass over the blocks follows all paths backwards."""
        has_row = self.offsets.diff() > 0
        rows = has_row.nonzero()[:, 0]
        after_sources = np.zeros(self.n_nodes, dtype=np.int64)  # one more than the last source that has edges itself
        if len(rows):
            with_rows = (self.source + 1) * has_row.index_select(0, self.source)
            after_sources[rows.numpy()] = np.maximum.reduceat(with_rows.numpy(), self.offsets[rows].numpy())
        blocks, stop = [], self.n_nodes
        while len(left := rows[: int(torch.searchsorted(rows, stop))]):
            stop = int(left[-1]) + 1
            start = int(after_sources[stop - 1])
            while (needed := int(after_sources[start:stop].max(initial=0))) > start:
                start = needed
            assert start < stop, "an adjacency matrix with a cycle"
            blocks.append(slice(start, stop))
            stop = start
        return blocks

    def by_target(self, values, rows=None):
        """The sum over each node's incoming edges [n_nodes] float64 of values(edges), of a slice of the edges at a time; rows: a slice of
        the targets, the others' being 0."""
        return self._sums(self.target, values, rows)

    def by_source(self, values, rows=None):
        """As `by_target` over each node's outgoing edges, those into `rows` where given."""
        return self._sums(self.source, values, rows)

    def _sums(self, ends, values, rows):
        total = torch.zeros(self.n_nodes, dtype=torch.float64)
        start, stop = (0, len(self)) if rows is None else self.offsets[[rows.start, rows.stop]].tolist()
        for first in range(start, stop, BLOCK_EDGES):
            edges = slice(first, min(first + BLOCK_EDGES, stop))
            total.index_add_(0, ends[edges], values(edges).double())
        return total

    @property
    def input_mass(self):
        """The sum of the absolute weights of each node's incoming edges, dropped ones too [n_nodes] float64."""
        return self.by_target(lambda edges: self.weight[edges].abs()) + self.dropped

    def where(self, mask):
        """The edges of mask [n_edges]; the others are dropped."""
        part = self.alone(mask)
        return Adjacency(part.offsets, part.source, part.weight, self.dropped_without(~mask))

    def alone(self, mask):
        """The edges of mask [n_edges], of which nothing is dropped: a graph of their own."""
        no_dropped = torch.zeros_like(self.dropped)
        if bool(mask.all()):
            whole = Adjacency(self.offsets, self.source, self.weight, no_dropped)
            whole.target = self.target
            return whole
        places = mask.nonzero()[:, 0]
        offsets = torch.searchsorted(places, self.offsets)
        return Adjacency(offsets, self.source.index_select(0, places), self.weight.index_select(0, places), no_dropped)

    def degrees(self, places):
        """How many of the edges at `places` leave each node and how many enter it, both [n_nodes]."""
        return tuple(torch.bincount(ends.index_select(0, places), minlength=self.n_nodes) for ends in (self.source, self.target))

    def dropped_without(self, mask):
        """What `dropped` is when the edges of mask [n_edges] are left out too."""
        return self.dropped + self.by_target(lambda edges: self.weight[edges].abs() * mask[edges])

    def places(self, pairs):
        """Where the edges (source, target) of a list stand [n_pairs]; each must be there."""
        places = []
        for source, target in pairs:
            start, stop = self.offsets[[target, target + 1]].tolist()
            places.append(start + int(torch.searchsorted(self.source[start:stop], source)))
            assert places[-1] < stop and int(self.source[places[-1]]) == source, "no such edge"
        return torch.tensor(places)


class EdgeCollector:
    """Takes dense blocks of rows, in any order, no row of a block being a source of another; keeps the edges of at least `min_weight`:
    all, until there are more than max_edges; then min_weight rises so that half of them stay, and what equals the weakest of these.

    source and weight hold the edges in the order in which their rows came; both grow in place and are thinned in place, so that an edge
    takes its own bytes and, while they are thinned or given away, half as many more. ranked: `influence` will be asked for.
    """

    def __init__(self, n_nodes, *, dtype, max_edges=None, ranked=False):
        self.n_nodes, self.dtype, self.max_edges = n_nodes, dtype, max_edges
        self.source, self.weight = np.empty(0, np.int32), np.empty(0, torch.empty(0, dtype=dtype).numpy().dtype)
        self.rows, self.counts = [], []  # which rows came, and how many edges of each are kept
        self.n_edges, self.min_weight = 0, 0.0
        self.dropped = torch.zeros(n_nodes, dtype=torch.float64)
        self.mass = torch.zeros(n_nodes, dtype=torch.float64) if ranked else None  # of each row, dropped edges too

    _columns = property(lambda self: (torch.from_numpy(self.source), torch.from_numpy(self.weight)))

    def add(self, targets, sources, block):
        """Rows `targets` [n_rows]: block [n_rows, n_sources] of the weights from `sources` [n_sources], rising."""
        targets, sources, block = targets.cpu(), sources.int().cpu(), block.to("cpu", self.dtype)
        if self.mass is not None:
            self.mass[targets] = torch.linalg.vector_norm(block, 1, dim=1, dtype=torch.float64)
        mask = block != 0
        if self.min_weight:
            mask &= block.abs() >= self.min_weight
            self.dropped[targets] += (block.double().abs() * ~mask).sum(1)
        places = mask.flatten().nonzero()[:, 0]
        start, self.n_edges = self.n_edges, self.n_edges + len(places)
        self._make_room()
        for column, values in zip(self._columns, (sources[places % len(sources)], block.flatten()[places]), strict=True):
            column[start : self.n_edges] = values
        self.rows.append(targets)
        self.counts.append(mask.sum(1))
        if self.max_edges is not None and self.n_edges > self.max_edges:
            self._thin()

    def _make_room(self):
        if self.n_edges > len(self.source):
            room = self.n_edges + min(self.n_edges, 16 * BLOCK_EDGES)
            for column in (self.source, self.weight):
                column.resize(room, refcheck=False)  # in place: Linux moves a large array without a copy

    def _thin(self):
        weights, place = self.weight[: self.n_edges].copy(), self.n_edges - self.max_edges // 2 - 1
        np.abs(weights, out=weights).partition(place)
        self.min_weight = float(weights[place])
        del weights
        rows, counts = torch.cat(self.rows), torch.cat(self.counts)
        ends, left, n_left = counts.cumsum(0), torch.zeros_like(counts), 0
        for first in range(0, self.n_edges, BLOCK_EDGES):
            edges = torch.arange(first, min(first + BLOCK_EDGES, self.n_edges))
            row, weight = torch.searchsorted(ends, edges, right=True), self._columns[1][first : first + len(edges)]
            mask = weight.abs() >= self.min_weight
            self.dropped.index_add_(0, rows[row[~mask]], weight[~mask].double().abs())
            left += torch.bincount(row[mask], minlength=len(rows))
            kept = edges[mask]
            for column in self._columns:
                column[n_left : n_left + len(kept)] = column[kept]
            n_left += len(kept)
        self.counts, self.n_edges = list(left.split([len(some) for some in self.rows])), n_left

    def influence(self, target_weights):
        """Influence of every node [n_nodes] through the rows so far, as `influence.influence` of their adjacency, which is not made:
        target_weights [n_nodes]."""
        total, stops = torch.zeros_like(target_weights), np.cumsum([int(counts.sum()) for counts in self.counts])
        per_weight = 1 / self.mass.clamp(min=MIN_ROW_SUM)
        blocks = sorted(zip(self.rows, self.counts, stops, strict=True), key=lambda block: -int(block[0][0]))
        for rows, counts, stop in blocks:  # later layers first
            flow = (total + target_weights)[rows] * per_weight[rows]
            same, lengths = (values.tolist() for values in counts.unique_consecutive(return_counts=True)[::-1])
            start, row = int(stop) - int(counts.sum()), 0
            for n_rows, n_sources in zip(same, lengths, strict=True):
                edges = slice(start, start + n_rows * n_sources)
                if bool(flow[row : row + n_rows].any()):
                    self._add_flow(total, flow[row : row + n_rows], edges)
                start, row = edges.stop, row + n_rows
        return total

    def _add_flow(self, total, flow, edges):
        """Adds to `total` what rows of equal length, whose influence per weight is `flow` [n_rows], give to their sources."""
        source, weight = (column[edges].view(len(flow), -1) for column in self._columns)
        if bool((source == source[:1]).all()):  # as of a block's rows at one position
            total.index_add_(0, source[0], flow @ weight.abs().double())
        else:
            total.index_add_(0, source.flatten(), (flow[:, None] * weight.abs()).flatten())

    def finish(self):
        """The `Adjacency` of all rows; the collector is empty afterwards, so that no edge is held twice."""
        columns = [*self._columns]
        self.source = self.weight = None
        return self._joined(columns)

    def _joined(self, columns):
        rows, counts = torch.cat(self.rows), torch.cat(self.counts)
        order, ends = rows.argsort(), counts.cumsum(0)
        begins = torch.cat([torch.ones(1, dtype=torch.bool), order.diff() != 1])  # of rows that stand side by side already
        spans = list(zip((ends - counts)[order[begins]].tolist(), ends[order[begins.roll(-1)]].tolist(), strict=True))
        all_counts = torch.zeros(self.n_nodes, dtype=torch.int64).index_copy_(0, rows, counts)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), all_counts.cumsum(0)])
        joined = []
        while columns:
            column = columns.pop(0)
            joined.append(torch.cat([column[start:stop] for start, stop in spans]))
            del column
        return Adjacency(offsets, *joined, self.dropped.clone())
