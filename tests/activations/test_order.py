import itertools

import numpy as np
import pytest

from cltdb.activations import order as orders
from cltdb.activations.order import RowOrder, permuted


def row_order(n_rows, *, block_rows, pool_rows, seed=1):
    """Of blocks that all have block_rows rows, but for a shorter last one."""
    rest = n_rows % block_rows
    rows = [block_rows] * (n_rows // block_rows) + [rest] * bool(rest)
    return RowOrder(rows, n_full=n_rows // block_rows, most_rows=block_rows, pool_rows=pool_rows, seed=seed)


@pytest.mark.parametrize("n", [1, 2, 3, 16, 17, 1000])
def test_blocks_are_permuted_and_keys_differ(n):
    images = permuted(np.arange(n), n, key=(3, 0))
    assert sorted(images) == list(range(n))
    assert [int(permuted(np.array([place]), n, key=(3, 0))[0]) for place in range(min(n, 20))] == images[:20].tolist()
    if n > 100:
        assert (permuted(np.arange(n), n, key=(3, 1)) == images).mean() < 0.02
        assert abs(np.corrcoef(np.arange(n), images)[0, 1]) < 0.1


def test_images_are_uniform():
    counts = np.zeros((6, 6))
    for seed in range(1000):
        counts[np.arange(6), permuted(np.arange(6), 6, key=(seed, 0))] += 1
    assert abs(counts / 1000 - 1 / 6).max() < 0.05


@pytest.mark.parametrize(
    ("n_rows", "block_rows", "pool_rows"), [(140, 7, 35), (141, 7, 30), (5, 7, 1), (1000, 10, 10**6), (99, 10, 3)]
)
def test_every_row_once_in_every_epoch(n_rows, block_rows, pool_rows):
    order = row_order(n_rows, block_rows=block_rows, pool_rows=pool_rows)
    for epoch in range(2):
        seen, row = [], epoch * n_rows
        while row < (epoch + 1) * n_rows:
            pool = order.pool_at(row)
            assert pool.epoch == epoch and order.first_row(pool) == row and pool.n_rows <= order.largest_pool
            assert order.largest_pool <= max(pool_rows, block_rows)
            rows = np.concatenate(
                [np.arange(block * block_rows, min((block + 1) * block_rows, n_rows)) for block in order.blocks(pool)]
            )
            assert len(rows) == pool.n_rows
            seen += rows[order.rows(pool)].tolist()
            row += pool.n_rows
        assert sorted(seen) == list(range(n_rows))


def test_segments_tile_the_stream():
    order = row_order(141, block_rows=7, pool_rows=30)
    segments = list(order.segments(100, 500))
    places = [order.first_row(pool) + place for pool, first, stop in segments for place in range(first, stop)]
    assert places == list(range(100, 500)) and all(stop <= pool.n_rows for pool, _, stop in segments)
    assert all(order.pool_at(row) == pool for pool, first, stop in segments for row in [order.first_row(pool) + first])


@pytest.mark.parametrize(("n_rows", "block_rows", "pool_rows"), [(140, 7, 35), (141, 7, 30), (5, 7, 1), (1000, 10, 10**6)])
def test_blocks_of_equal_rows_make_the_pools_that_arithmetic_alone_tells(n_rows, block_rows, pool_rows):
    """The order of text without excluded tokens, as every training before had it: pools cut by number of blocks."""
    order, n_blocks = row_order(n_rows, block_rows=block_rows, pool_rows=pool_rows), -(-n_rows // block_rows)
    n_pools = -(-n_blocks // max(1, pool_rows // block_rows))
    assert order.n_pools == n_pools
    for epoch, row in itertools.product(range(2), range(n_rows)):
        number = ((row // block_rows + 1) * n_pools - 1) // n_blocks
        start, stop = (end * n_blocks // n_pools * block_rows for end in (number, number + 1))
        assert order.pool_at(epoch * n_rows + row) == (epoch, number, start, min(stop, n_rows) - start)


@pytest.mark.parametrize("chunk", [1, 4, 2**16])
def test_every_row_of_blocks_of_any_size_once_in_every_epoch(monkeypatch, chunk):
    monkeypatch.setattr(orders, "CHUNK_BLOCKS", chunk)
    rows = np.random.default_rng(0).integers(0, 8, 41)
    rows[[3, 4, 5, 40]] = 0, 0, 0, 2
    order = RowOrder(rows, n_full=40, most_rows=7, pool_rows=15, seed=1)
    assert order.n_rows == rows.sum() and order.n_pools == 21
    for epoch in range(3):
        seen, row = [], epoch * order.n_rows
        while row < (epoch + 1) * order.n_rows:
            pool = order.pool_at(row)
            assert order.first_row(pool) == row and 0 < pool.n_rows <= order.largest_pool
            assert pool == order.pool(epoch, pool.number)
            blocks = order.blocks(pool)
            places = [(block, place) for block in blocks.tolist() for place in range(rows[block])]
            assert len(places) == pool.n_rows
            seen += [places[place] for place in order.rows(pool)]
            row += pool.n_rows
        assert sorted(seen) == [(block, place) for block in range(41) for place in range(rows[block])]
        assert blocks[-1] == 40  # the shorter last block stays last
    segments = list(order.segments(100, 500))
    places = [order.first_row(pool) + place for pool, first, stop in segments for place in range(first, stop)]
    assert places == list(range(100, 500))
