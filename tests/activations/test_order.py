import numpy as np
import pytest

from cltdb.activations.order import RowOrder, permuted


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
    order = RowOrder(n_rows, block_rows=block_rows, pool_rows=pool_rows, seed=1)
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
    order = RowOrder(141, block_rows=7, pool_rows=30, seed=1)
    segments = list(order.segments(100, 500))
    places = [order.first_row(pool) + place for pool, first, stop in segments for place in range(first, stop)]
    assert places == list(range(100, 500)) and all(stop <= pool.n_rows for pool, _, stop in segments)
    assert all(order.pool_at(row) == pool for pool, first, stop in segments for row in [order.first_row(pool) + first])
