import pytest
import torch

from cltdb.attribute.adjacency import Adjacency, EdgeCollector


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
    for adjacency in (edges.adjacency(), edges.finish()):
        assert torch.equal(adjacency.dense(), expected) and not adjacency.dropped.any()
        assert torch.equal(adjacency.offsets, Adjacency.of_dense(expected).offsets)
        assert torch.equal(adjacency.source, Adjacency.of_dense(expected).source)


@pytest.mark.parametrize("order", [torch.arange(40), torch.randperm(40, generator=torch.Generator().manual_seed(1))])
def test_of_too_many_edges_the_strongest_stay_and_the_rest_is_booked(order):
    matrix = random_matrix()
    edges = collected(matrix, order, max_edges=100)
    adjacency = edges.finish()
    kept = matrix * (matrix.abs() >= edges.min_weight)
    assert 0 < len(adjacency) <= 100 and torch.equal(adjacency.dense(), kept)
    left_out = (matrix.double() - kept.double()).abs().sum(1)
    torch.testing.assert_close(adjacency.dropped, left_out, rtol=1e-6, atol=1e-9)


def test_where_books_what_it_leaves_out():
    matrix = random_matrix()
    adjacency = Adjacency.of_dense(matrix)
    part = adjacency.where(adjacency.weight.abs() > 1)
    assert torch.equal(part.dense(), matrix * (matrix.abs() > 1))
    torch.testing.assert_close(part.dropped, (matrix - part.dense()).abs().sum(1).double())


def test_places_of_edges():
    matrix = random_matrix()
    adjacency = Adjacency.of_dense(matrix)
    pairs = [(int(source), int(target)) for target, source in matrix.nonzero()[[5, 2, 30]]]
    assert adjacency.weight[adjacency.places(pairs)].tolist() == [float(matrix[target, source]) for source, target in pairs]
    with pytest.raises(AssertionError, match="no such edge"):
        adjacency.places([(39, 0)])
