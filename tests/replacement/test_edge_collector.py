"""Rows as they come are the matrix, and what is left out of it is booked."""

import numpy as np
import pytest
import torch

from cltdb.graphs.adjacency import Adjacency
from cltdb.graphs.influence import Shares, influence
from cltdb.replacement.edge_collector import EdgeCollector


def random_matrix(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, generator=generator).tril(-1) * (torch.rand(n, n, generator=generator) < 0.5)


def collected(matrix, order, *, chunk=7, **options):
    """Rows given in chunks of `order`, without the columns that are 0 in all of them, as far as rows are given."""
    edges = EdgeCollector(len(matrix), dtype=matrix.dtype, **options)
    for start in range(0, len(order), chunk):
        rows = order[start : start + chunk].sort().values
        sources = torch.arange(int(rows.max()) + 1)
        edges.add(rows, sources, matrix[rows][:, sources])
    return edges


@pytest.mark.parametrize("order", ["rising", "mixed", "part"])
def test_collected_rows_are_the_matrix(order):
    matrix = random_matrix()
    order = {"rising": torch.arange(40), "mixed": torch.randperm(40), "part": torch.randperm(40)[:20]}[order]
    edges = collected(matrix, order)
    expected = torch.zeros_like(matrix).index_copy_(0, order, matrix[order])
    adjacency = edges.finish()
    assert np.array_equal(adjacency.dense(), expected) and not adjacency.dropped.any()
    assert adjacency.offsets.tolist() == Adjacency.of_dense(expected.numpy()).offsets.tolist()
    assert adjacency.source.tolist() == Adjacency.of_dense(expected.numpy()).source.tolist()


@pytest.mark.parametrize("order", [torch.arange(40), torch.randperm(40, generator=torch.Generator().manual_seed(1))])
def test_of_too_many_edges_the_strongest_stay_and_the_rest_is_booked(order):
    matrix = random_matrix()
    edges = collected(matrix, order, max_edges=100)
    adjacency = edges.finish()
    kept = matrix * (matrix.abs() >= edges.min_weight)
    assert 0 < len(adjacency) <= 100 and np.array_equal(adjacency.dense(), kept)
    left_out = (matrix.double() - kept.double()).abs().sum(1)
    np.testing.assert_allclose(adjacency.dropped, left_out, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("share", [0.5, 1.0], ids=["sparse", "full rows"])
@pytest.mark.parametrize("max_edges", [None, 300])
def test_influence_through_the_rows_so_far_is_that_of_their_adjacency(share, max_edges):
    """Rows in batches of one layer, as `edges.direct_effects` gives them, without the adjacency being made."""
    generator, layer = torch.Generator().manual_seed(0), torch.arange(50) // 10
    matrix = (
        torch.randn(50, 50, generator=generator) * (layer[:, None] > layer) * (torch.rand(50, 50, generator=generator) < share)
    )
    edges, weights = EdgeCollector(50, dtype=matrix.dtype, max_edges=max_edges, ranked=True), torch.zeros(50, dtype=torch.float64)
    weights[45:] = torch.rand(5, generator=generator).double()
    for rows in (torch.arange(40, 50), torch.arange(20, 24), torch.arange(31, 38), torch.arange(12, 20)):
        edges.add(rows, torch.arange(int(layer[rows[0]]) * 10), matrix[rows][:, : int(layer[rows[0]]) * 10])
    found = edges.influence(weights)
    assert (edges.min_weight > 0) == (max_edges is not None) and found.count_nonzero() > 20
    np.testing.assert_allclose(found, influence(Shares(edges.finish()), weights.numpy()), rtol=1e-12, atol=0)
