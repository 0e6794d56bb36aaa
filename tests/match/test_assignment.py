"""Assignments against scipy's over the whole matrix and against trying all, and relations against loops."""

from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

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


def test_above_the_exact_size_a_lower_threshold_assigns_weaker_pairs(monkeypatch):
    """All partners at 0.4: above a threshold of 0.3 every one is matched."""
    monkeypatch.setattr(module, "EXACT", 0)
    matrix = np.full((9, 9), -0.1, dtype=np.float32)
    order = np.random.default_rng(0).permutation(9)
    matrix[np.arange(9), order] = 0.4
    found = relations(assign(blocks(matrix, 4), 9, 9, floor=0.3), 0.3)
    assert found.relation.tolist() == ["matched"] * 9 and found.second.tolist() == order.tolist()


def plain_relations(matrix, threshold):
    """Rows (relation, first, second, similarity), by loops over scipy's assignment."""
    pairs = {(a, b) for a, b in zip(*linear_sum_assignment(matrix, maximize=True), strict=True) if matrix[a, b] > threshold}
    near_a, near_b = matrix.argmax(1), matrix.argmax(0)
    while True:
        firsts, seconds = {a for a, _ in pairs}, {b for _, b in pairs}
        alone = [(a, b) for a in range(len(matrix)) for b in range(matrix.shape[1]) if a not in firsts and b not in seconds]
        alone = [(a, b) for a, b in alone if matrix[a, b] > threshold and (near_a[a] == b or near_b[b] == a)]
        if not alone:
            break
        pairs.add(max(alone, key=lambda pair: matrix[pair]))
    rows = [("matched", a, b, matrix[a, b]) for a, b in pairs]
    for b in set(range(matrix.shape[1])) - seconds:
        a = near_b[b]
        rows.append(("split", a, b, matrix[a, b]) if matrix[a, b] > threshold else ("appeared", -1, b, matrix[a, b]))
    for a in set(range(len(matrix))) - firsts:
        b = near_a[a]
        rows.append(("merged", a, b, matrix[a, b]) if matrix[a, b] > threshold else ("vanished", a, -1, matrix[a, b]))
    return sorted(rows)


@pytest.mark.parametrize("seed", range(3))
def test_each_feature_has_one_relation(seed):
    matrix = similar(40, 60, seed=seed)
    matrix[:, 50:] = matrix[:, 40:50]  # features of the second that are there twice
    matrix[35:] = matrix[30:35]
    found = relations(assign(blocks(matrix), *matrix.shape), 0.7)
    rows = sorted(zip(found.relation, found.first, found.second, found.similarity, strict=True))
    assert rows == plain_relations(matrix, 0.7)
    assert {row[0] for row in rows} == {"matched", "split", "merged", "appeared", "vanished"}


def test_two_that_the_largest_sum_leaves_alone_are_matched_where_they_are_alike():
    """0.69 + 0.69 is more than 0.75 - 0.3, but no match; the two at 0.75 are one feature, not split and merged at once."""
    matrix = np.array([[0.75, 0.69], [0.69, -0.3]], dtype=np.float32)
    found = relations(assign([matrix], 2, 2), 0.7)
    assert list(zip(found.relation, found.first, found.second, strict=True)) == [
        ("matched", 0, 0),
        ("appeared", -1, 1),
        ("vanished", 1, -1),
    ]


@pytest.mark.parametrize("seed", range(60))
def test_where_strong_and_weak_pairs_compete_no_pair_stands_twice_and_every_split_has_a_match(seed):
    generator = np.random.default_rng(seed)
    matrix = generator.choice(np.linspace(0.6, 0.8, 41, dtype=np.float32), (6, 7)) * generator.choice(
        [1, -0.4], (6, 7), p=[0.6, 0.4]
    )
    matrix = matrix.astype(np.float32) + generator.random((6, 7), dtype=np.float32) / 1000  # no ties
    found = relations(assign([matrix], 6, 7), 0.7)
    assert sorted(zip(found.relation, found.first, found.second, found.similarity, strict=True)) == plain_relations(matrix, 0.7)
    pairs = list(zip(found.first, found.second, strict=True))
    assert len(set(pairs)) == len(pairs)
    is_match = found.relation == "matched"
    assert set(found.first[found.relation == "split"]) <= set(found.first[is_match])
    assert set(found.second[found.relation == "merged"]) <= set(found.second[is_match])


@pytest.mark.parametrize(("n_matched", "n"), [(0, 512), (512, 512), (60, 200), (1, 1), (0, 1), (7, 7000)])
def test_the_ends_of_a_share_are_those_that_could_just_have_given_it(n_matched, n):
    """Wilson: an end p lies 1.96 of its own standard errors, sqrt(p (1 - p) / n), from the share."""
    found = share(n_matched, n)
    assert found.value == n_matched / n and found.low <= found.value <= found.high and found.low < found.high
    for end in (found.low, found.high):
        if end not in (0, 1):
            assert abs(end - found.value) == pytest.approx(1.959964 * (end * (1 - end) / n) ** 0.5, rel=1e-6)
    assert (found.low == 0) == (n_matched == 0) and (found.high == 1) == (n_matched == n)


def test_the_interval_of_nothing_is_no_point():
    assert share(0, 512) == pytest.approx((0, 0, 1.959964**2 / (512 + 1.959964**2)))
