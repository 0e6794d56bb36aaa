"""The adjacency matrix in compressed rows against the matrix itself."""

import numpy as np
import pytest

from cltdb.graphs import adjacency as module
from cltdb.graphs.adjacency import Adjacency


def random_matrix(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return np.tril(rng.normal(size=(n, n)), -1) * (rng.random((n, n)) < 0.5)


def test_rows_and_sums_are_those_of_the_matrix(monkeypatch):
    """Whatever number of edges is read at once."""
    monkeypatch.setattr(module, "BLOCK_EDGES", 7)
    matrix, per_node = random_matrix(), np.arange(40.0)
    adjacency = Adjacency.of_dense(matrix)
    assert np.array_equal(adjacency.dense(), matrix) and len(adjacency) == np.count_nonzero(matrix)
    assert np.array_equal(adjacency.at_source(per_node), per_node[adjacency.source])
    assert np.array_equal(adjacency.at_target(per_node), adjacency.target.astype(float))
    np.testing.assert_allclose(adjacency.input_mass, abs(matrix).sum(1))
    np.testing.assert_allclose(adjacency.by_source(lambda edges: adjacency.weight[edges]), matrix.sum(0))
    of_some_rows = adjacency.by_source(lambda edges: adjacency.weight[edges], slice(10, 30))
    np.testing.assert_allclose(of_some_rows, matrix[10:30].sum(0))


def test_where_books_what_it_leaves_out():
    matrix = random_matrix()
    adjacency = Adjacency.of_dense(matrix)
    part = adjacency.where(abs(adjacency.weight) > 1)
    assert np.array_equal(part.dense(), matrix * (abs(matrix) > 1))
    np.testing.assert_allclose(part.dropped, abs(matrix - part.dense()).sum(1), rtol=1e-7, atol=1e-7)


def test_places_of_edges():
    matrix = random_matrix()
    adjacency = Adjacency.of_dense(matrix)
    pairs = [(int(source), int(target)) for target, source in np.argwhere(matrix)[[5, 2, 30]]]
    assert adjacency.weight[adjacency.places(pairs)].tolist() == [matrix[target, source] for source, target in pairs]
    with pytest.raises(AssertionError, match="no such edge"):
        adjacency.places([(39, 0)])
