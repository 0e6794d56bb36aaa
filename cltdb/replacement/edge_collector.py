"""Collects the rows of an adjacency matrix as they are computed; of too many edges for memory, the strongest are kept."""

import numpy as np
import torch

from cltdb.graphs.adjacency import BLOCK_EDGES, MIN_ROW_SUM, Adjacency


class EdgeCollector:
    """Takes dense blocks of rows in any order. No row of a block may be a source of another row in it.

    Edges whose absolute weight is at least `min_weight` are kept. That is 0 until there are more than max_edges; then it rises so
    that half of them stay, with all that are as weak as the weakest of these. ranked: `influence` will be asked for. source and
    weight hold the edges in the order in which their rows came. Both grow and are thinned in place, so that memory never holds
    more than one and a half times the bytes of the edges.
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
        """Adds the rows `targets` [n_rows]: block [n_rows, n_sources] has the weights of their edges from `sources` [n_sources],
        rising."""
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
        """The influence of every node [n_nodes] through the rows so far; target_weights [n_nodes]. It equals
        `influence.influence` of their adjacency, which is not made."""
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
        """Adds to `total` what rows with equally many edges give to their sources; flow [n_rows]: their influence per weight."""
        source, weight = (column[edges].view(len(flow), -1) for column in self._columns)
        if bool((source == source[:1]).all()):  # the same sources in each row, as where targets stand at one position
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
        return Adjacency(*(array.numpy() for array in (offsets, *joined, self.dropped.clone())))
