"""The order in which the rows of a cache are trained on: a function of the seed, the epoch and the place alone.

Rows (ordinary tokens) form blocks, the record batches of the shards; how many rows a block has depends on its text. An epoch permutes
the blocks over all shards and cuts them into pools of as many blocks as hold `pool_rows` rows where no token is excluded; a pool's rows are
permuted among themselves. Of the size of the cache nothing is held but the number of rows of each block (4 bytes for at least 256
tokens): the permutation of the blocks is a keyed bijection that is computed for the blocks at hand.
Source: a Feistel network with cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", method 2).
"""

from typing import NamedTuple

import numpy as np

ROUNDS = 6
CHUNK_BLOCKS = 2**16  # whose rows are counted at a time


class Pool(NamedTuple):
    """Pool `number` of an epoch holds the rows `start` to `start + n_rows - 1` of that epoch's order."""

    epoch: int
    number: int
    start: int
    n_rows: int


class Segment(NamedTuple):
    """The rows first to stop - 1 of a pool, counted in the pool."""

    pool: Pool
    first: int
    stop: int


class RowOrder:
    """The endless stream of rows of all epochs. block_rows [n_blocks]: of every block; most_rows: that a block can have; n_full: blocks
    of as many sequences as all others, to which a shorter last one of the cache may come; n_rows: of one epoch."""

    def __init__(self, block_rows, *, n_full, most_rows, pool_rows, seed):
        self.block_rows, self.n_full, self.seed = np.asarray(block_rows, dtype=np.int32), n_full, seed
        self.n_blocks, self.n_rows = len(self.block_rows), int(self.block_rows.sum(dtype=np.int64))
        self.n_pools = -(-self.n_blocks // max(1, pool_rows // most_rows))
        self.largest_pool = min(self.n_rows, -(-self.n_blocks // self.n_pools) * most_rows)
        self._starts = {}

    def pool(self, epoch, number):
        start, stop = self._first_rows(epoch)[number : number + 2].tolist()
        return Pool(epoch, number, start, stop - start)

    def _block_span(self, number):
        return number * self.n_blocks // self.n_pools, (number + 1) * self.n_blocks // self.n_pools

    def _first_rows(self, epoch):
        """The first row of each pool in the order of an epoch, and n_rows [n_pools + 1]; those of the last two epochs asked for are kept."""
        if epoch not in self._starts:
            ends = self._block_span(np.arange(self.n_pools))[1]
            counted, parts = 0, [np.zeros(1, dtype=np.int64)]
            for first in range(0, self.n_blocks, CHUNK_BLOCKS):
                stop = min(first + CHUNK_BLOCKS, self.n_blocks)
                rows = counted + self.block_rows[self._ordered(epoch, first, stop)].cumsum(dtype=np.int64)
                parts.append(rows[ends[(ends > first) & (ends <= stop)] - first - 1])
                counted = rows[-1]
            self._starts = {**dict(list(self._starts.items())[-1:]), epoch: np.concatenate(parts)}
        return self._starts[epoch]

    def pool_at(self, row):
        """The pool that holds row `row` of the stream."""
        epoch, row = divmod(row, self.n_rows)
        return self.pool(epoch, int(np.searchsorted(self._first_rows(epoch), row, side="right")) - 1)

    def segments(self, start, stop):
        """The `Segment`s of rows start to stop - 1 of the stream."""
        while start < stop:
            pool = self.pool_at(start)
            first = start - self.first_row(pool)
            taken = min(stop - start, pool.n_rows - first)
            yield Segment(pool, first, first + taken)
            start += taken

    def first_row(self, pool):
        """The pool's first row in the stream."""
        return pool.epoch * self.n_rows + pool.start

    def blocks(self, pool):
        """The blocks of a pool."""
        return self._ordered(pool.epoch, *self._block_span(pool.number))

    def _ordered(self, epoch, first, stop):
        """The blocks at the places first to stop - 1 of an epoch. A shorter last block of the cache is always the last of an epoch."""
        places = np.arange(first, stop)
        full = places[places < self.n_full]
        return np.concatenate([permuted(full, self.n_full, key=(self.seed, epoch)), places[places >= self.n_full]])

    def rows(self, pool):
        """[n_rows] the pool's rows in their order, as places in its blocks laid end to end."""
        return np.random.default_rng([self.seed, pool.epoch, pool.number]).permutation(pool.n_rows)


def permuted(places, n, *, key):
    """The images of `places` under a bijection of 0 … n - 1 that the integers of `key` choose."""
    if n < 2:
        return places
    half = np.uint64(-(-max(2, int(n - 1).bit_length()) // 2))
    keys = np.random.default_rng(key).integers(0, 2**64, ROUNDS, dtype=np.uint64)
    images = _feistel(places.astype(np.uint64), half, keys)
    while (outside := images >= n).any():
        images[outside] = _feistel(images[outside], half, keys)
    return images.astype(np.int64)


def _feistel(values, half, keys):
    """A bijection of the numbers of 2 * half bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return left << half | right


def _mixed(values):
    """splitmix64's finaliser: every bit depends on every bit."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
