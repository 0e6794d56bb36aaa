"""Assignments against scipy's over the whole matrix and against trying all, and relations against loops."""

from itertools import permutations

import numpy as np
import pytest

from cltdb.match import assignment as module
from cltdb.match.assignment import assign
from cltdb.match.relations import relations, share


def similar(n_first, n_second, *, seed=0, d=24, noise=1.5):
    """Cosines of which about half are of pairs that belong together."""
    generator = np.random.default_rng(seed)
    first = generator.normal(size=(n_first, d))
    second = generator.normal(size=(n_second, d))
    n = min(n_first, n_second)
    second[generator.permutation(n_second)[:n]] = first[:n] + noise * generator.random((n, 1)) * second[:n]
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    return (unit(first) @ unit(second).T).astype(np.float32)


def blocks(matrix, n=7):
    return (matrix[start : start + n] for start in range(0, len(matrix), n))


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_the_sum_of_similarities_is_the_largest_of_all_assignments(shape):
    matrix = similar(*shape)
    found = assign(blocks(matrix, 2), *shape)
    small = matrix if shape[0] <= shape[1] else matrix.T
    best = max(sum(small[i, j] for i, j in enumerate(order)) for order in permutations(range(max(shape)), min(shape)))
    assert found.similarity.sum() == pytest.approx(best, abs=1e-5) and len(found.first) == min(shape)
    assert found.similarity.tolist() == matrix[found.first, found.second].tolist()
    assert found.nearest_second.tolist() == matrix.argmax(1).tolist() and found.highest_first.tolist() == matrix.max(1).tolist()
    assert found.nearest_first.tolist() == matrix.argmax(0).tolist() and found.highest_second.tolist() == matrix.max(0).tolist()


@pytest.mark.parametrize("shape", [(300, 300), (200, 350), (350, 200)])
def test_of_many_the_strong_pairs_are_assigned_as_over_all(monkeypatch, shape):
    """Where features are few dimensions' (24) the two may differ in pairs near the threshold; the sum over strong pairs is never smaller."""
    for d in (24, 64):
        matrix = similar(*shape, d=d)
        monkeypatch.setattr(module, "EXACT", 1000)
        exact = assign(blocks(matrix), *shape)
        monkeypatch.setattr(module, "EXACT", 0)
        sparse = assign(blocks(matrix), *shape)
        strong = exact.similarity[exact.similarity >= module.FLOOR].sum()
        assert sparse.similarity.min() >= module.FLOOR and sparse.similarity.sum() >= strong - 1e-4
        for above in (0.7, 0.9):
            pairs = [
                set(zip(one.first[one.similarity > above], one.second[one.similarity > above], strict=True))
                for one in (exact, sparse)
            ]
            assert len(pairs[0] ^ pairs[1]) <= (4 if d == 24 and above == 0.7 else 0) and len(pairs[0]) > 20
        assert all((a == b).all() for a, b in zip(sparse[3:], exact[3:], strict=True))


def test_a_feature_with_many_that_are_alike_keeps_the_strongest(monkeypatch):
    monkeypatch.setattr(module, "EXACT", 0)
    monkeypatch.setattr(module, "MOST", 3)
    matrix = np.linspace(0.6, 0.99, 20, dtype=np.float32)[None].repeat(4, 0)
    found = assign(blocks(matrix, 3), 4, 20)
    assert sorted(found.second.tolist()) == [17, 18, 19] and len(found.first) == 3


def test_where_none_is_alike_none_is_assigned(monkeypatch):
    monkeypatch.setattr(module, "EXACT", 0)
    found = assign(blocks(np.full((5, 6), 0.1, dtype=np.float32)), 5, 6)
    assert len(found.first) == 0 and len(relations(found, 0.7).first) == 11


@pytest.mark.parametrize("seed", range(3))
def test_each_feature_has_one_relation(seed):
    matrix = similar(40, 60, seed=seed)
    matrix[:, 50:] = matrix[:, 40:50]  # features of the second that are there twice
    matrix[35:] = matrix[30:35]
    assignment = assign(blocks(matrix), *matrix.shape)
    found = relations(assignment, 0.7)
    assigned = {(a, b) for a, b in zip(assignment.first, assignment.second, strict=True) if matrix[a, b] > 0.7}
    expected = [("matched", a, b, matrix[a, b]) for a, b in assigned]
    for b in set(range(60)) - {b for _, b in assigned}:
        a = int(matrix[:, b].argmax())
        expected.append(("split", a, b, matrix[a, b]) if matrix[a, b] > 0.7 else ("appeared", -1, b, matrix[a, b]))
    for a in set(range(40)) - {a for a, _ in assigned}:
        b = int(matrix[a].argmax())
        expected.append(("merged", a, b, matrix[a, b]) if matrix[a, b] > 0.7 else ("vanished", a, -1, matrix[a, b]))
    rows = list(zip(found.relation, found.first, found.second, found.similarity, strict=True))
    assert sorted(rows) == sorted(expected) and {row[0] for row in rows} == {"matched", "split", "merged", "appeared", "vanished"}


def test_the_interval_of_a_share_is_that_of_resampled_features():
    generator = np.random.default_rng(0)
    found = share(60, 200, generator)
    matched = np.arange(200) < 60
    drawn = matched[generator.integers(0, 200, (4000, 200))].mean(1)
    assert found.value == 0.3
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.011)
    assert share(5, 5, generator) == (1, 1, 1)
