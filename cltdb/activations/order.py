"""The order in which the rows of a cache are trained on: a function of the seed, the epoch and the place alone.

Rows (tokens but those at position 0) form blocks, the record batches of the shards. An epoch permutes the blocks over all shards and
cuts them into pools of about `pool_rows` rows; a pool's rows are permuted among themselves. Nothing of the size of the cache is
held: the permutation of the blocks is a keyed bijection that is computed for the blocks at hand.
Source: a Feistel network with cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", method 2).
"""

from typing import NamedTuple

import numpy as np

ROUNDS = 6


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
    """The endless stream of rows of all epochs. n_rows: of one epoch; block_rows: of every block but a shorter last one."""

    def __init__(self, n_rows, *, block_rows, pool_rows, seed):
        self.n_rows, self.block_rows, self.seed = n_rows, block_rows, seed
        self.n_blocks = -(-n_rows // block_rows)
        self.n_pools = -(-self.n_blocks // max(1, pool_rows // block_rows))
        self.largest_pool = min(n_rows, -(-self.n_blocks // self.n_pools) * block_rows)

    def pool(self, epoch, number):
        first, stop = self._block_span(number)
        start = first * self.block_rows
        return Pool(epoch, number, start, min(stop * self.block_rows, self.n_rows) - start)

    def _block_span(self, number):
        return number * self.n_blocks // self.n_pools, (number + 1) * self.n_blocks // self.n_pools

    def pool_at(self, row):
        """The pool that holds row `row` of the stream."""
        epoch, row = divmod(row, self.n_rows)
        return self.pool(epoch, ((row // self.block_rows + 1) * self.n_pools - 1) // self.n_blocks)

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
        """The blocks of a pool. A shorter last block of the cache is always the last of an epoch."""
        n_full = self.n_rows // self.block_rows
        places = np.arange(*self._block_span(pool.number))
        full = places[places < n_full]
        return np.concatenate([permuted(full, n_full, key=(self.seed, pool.epoch)), places[places >= n_full]])

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
