"""Influence, paths, pruning and scores on graphs small enough to work out by hand, and against a matrix inverse."""

import numpy as np
import pytest

from cltdb.errors import CltdbError
from cltdb.graphs.adjacency import MIN_ROW_SUM, Adjacency
from cltdb.graphs.influence import Shares, influence
from cltdb.graphs.paths import effects_on, path_lengths, strongest_paths, total_effects
from cltdb.graphs.pruning import Kept, find_threshold, prune, pruned_scores, scores, warn_without_influence

# Nodes: 0 feature "a", 1 feature "b", 2 feature "weak", 3 error, 4 embedding, 5 logit. Rows are targets.
ADJACENCY = np.array(
    [
        [0, 0, 0, 1, 3, 0],
        [4, 0, 0, 0, -4, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 9, 0.1, -0.9, 0, 0],
    ]
)
SPARSE = Adjacency.of_dense(ADJACENCY)
LOGIT_WEIGHTS = np.array([0, 0, 0, 0, 0, 0.5])
FEATURE = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
ERROR = np.array([0, 0, 0, 1, 0, 0], dtype=bool)
EMBEDDING = np.array([0, 0, 0, 0, 1, 0], dtype=bool)


def random_graph(n=30, seed=0):
    adjacency = np.tril(np.random.default_rng(seed).normal(size=(n, n)), -1)
    adjacency[n // 2] = 0  # a node without input
    weights = np.zeros(n)
    weights[-3:] = 0.5, 0.3, 0.1
    return adjacency, weights


def shares_of(matrix):
    """S of a matrix of weights."""
    return abs(matrix) / np.maximum(abs(matrix).sum(1, keepdims=True), MIN_ROW_SUM)


def influence_of(matrix, weights):
    adjacency = Adjacency.of_dense(matrix)
    return influence(Shares(adjacency), weights)


def edges_of(matrix, kept):
    """(target, source) of the kept edges."""
    adjacency = Adjacency.of_dense(matrix)
    return list(zip(adjacency.target[kept.edges].tolist(), adjacency.source[kept.edges].tolist(), strict=True))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("thresholds", [(0.8, 0.98), (1.0, 1.0), (0.0, 0.0)])
def test_without_influence_thresholds_choose_nothing_and_it_is_said(caplog, thresholds):
    """Edges between features, none to the logit."""
    alone = ADJACENCY.copy()
    alone[5] = 0
    node_influence = influence_of(alone, LOGIT_WEIGHTS)
    masks = {"is_inner": np.array([1, 0, 0, 0, 0, 0], dtype=bool), "is_source": ERROR}
    kept = prune(Adjacency.of_dense(alone), LOGIT_WEIGHTS, **masks, node_threshold=thresholds[0], edge_threshold=thresholds[1])
    assert not node_influence.any() and kept.nodes.all() and kept.edges.all()
    warn_without_influence(node_influence)
    assert caplog.messages == [
        "no node of the graph has influence on what is explained: the thresholds of pruning choose nothing"
    ]
    warn_without_influence(influence_of(ADJACENCY, LOGIT_WEIGHTS))
    assert len(caplog.messages) == 1


def test_influence_equals_the_matrix_inverse():
    adjacency, weights = random_graph()
    shares = shares_of(adjacency)
    B = np.linalg.inv(np.eye(len(shares)) - shares) - np.eye(len(shares))
    np.testing.assert_allclose(influence_of(adjacency, weights), weights @ B, rtol=0, atol=1e-12)


def test_influence_by_hand():
    values = influence_of(ADJACENCY, LOGIT_WEIGHTS)
    expected = [0.5 * 0.9 / 2, 0.5 * 0.9, 0.5 * 0.01, 0.5 * 0.09 + 0.225 / 4, 0.5 * 0.01 + 0.225 * 3 / 4 + 0.225, 0]
    np.testing.assert_allclose(values, expected)


def test_path_lengths_are_those_of_the_matrix_powers():
    adjacency, weights = random_graph()
    shares = shares_of(adjacency)
    is_end = np.arange(30) < 5
    expected, step = [], weights
    for _ in range(30):
        step = step @ shares
        expected.append(float(step[is_end].sum()))
    found = path_lengths(Shares(Adjacency.of_dense(adjacency)), weights, is_end)
    expected = np.array(expected[: len(found)])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-7, atol=1e-7)


def test_strongest_paths_are_those_of_all_paths():
    adjacency, weights = random_graph(14)
    shares = shares_of(adjacency)

    def paths_from(node):
        """Every path from a node to a target, [(strength, node ids)]."""
        found = [(float(weights[node]), [node])] if weights[node] else []
        for target in np.flatnonzero(shares[:, node]).tolist():
            found += [(float(shares[target, node]) * strength, [node, *path]) for strength, path in paths_from(target)]
        return found

    is_start = np.arange(14) < 4
    totals = [sum(strength for strength, _ in paths_from(start)) for start in range(4)]
    expected = sorted(((total, *max(paths_from(start))) for start, total in enumerate(totals)), reverse=True)[:3]
    shares = Shares(Adjacency.of_dense(adjacency))
    found = strongest_paths(shares, weights, is_start, influence(shares, weights), 3)
    assert [path for *_, path in found] == [path for *_, path in expected]
    np.testing.assert_allclose([row[:2] for row in found], [row[:2] for row in expected])


def test_a_cycle_is_a_bug_and_does_not_run_forever():
    with pytest.raises(AssertionError, match="cycle"):
        influence_of(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0]))


def test_find_threshold_keeps_the_node_that_crosses():
    values = np.array([1.0, 5.0, 3.0, 1.0])
    assert find_threshold(values, 0.5) == 5
    assert find_threshold(values, 0.55) == 3
    assert find_threshold(values, 1.0) == 1
    assert find_threshold(values, 0.0) == 5


def test_a_threshold_of_1_keeps_all_that_has_influence():
    values = np.array([0, 1, 1e-20, 0.5])  # 1e-20 is lost in the sum
    assert find_threshold(values, 1.0) == find_threshold(values, 1.0, total=2.0) == 1e-20
    assert find_threshold(np.zeros(3), 1.0) == 0


def pruned(node_threshold, edge_threshold, adjacency=ADJACENCY):
    return prune(
        Adjacency.of_dense(adjacency),
        LOGIT_WEIGHTS,
        is_inner=FEATURE,
        is_source=ERROR,
        node_threshold=node_threshold,
        edge_threshold=edge_threshold,
    )


def test_prune_drops_the_weak_feature():
    kept = pruned(0.99, 0.99)
    assert kept.nodes.tolist() == [True, True, False, True, True, True]
    assert edges_of(ADJACENCY, kept) == [(0, 3), (0, 4), (1, 0), (1, 4), (5, 1), (5, 3)]


def test_prune_drops_features_that_lose_their_last_edge():
    """At 0.8 of the edges, 5<-1 (.5), 0<-4 (.21) and 1<-4, 1<-0 (.25) of 1.25 remain: the error's edges go, and the
    error with them."""
    kept = pruned(0.99, 0.8)
    assert kept.nodes.tolist() == [True, True, False, False, True, True]
    assert (5, 3) not in edges_of(ADJACENCY, kept)


def test_prune_removes_chains_of_loose_ends():
    """Without its only output's edge, a feature goes, then the one that fed only it."""
    adjacency = np.zeros((6, 6))
    adjacency[0, 4], adjacency[1, 0], adjacency[5, 1], adjacency[5, 4] = 1, 1, 0.001, 1
    kept = pruned(1.0, 0.9, adjacency)
    assert kept.nodes.tolist() == [False, False, False, False, True, True]
    assert edges_of(adjacency, kept) == [(5, 4)]


def naive_prune(adjacency, weights, n_features, n_protected, node_threshold, edge_threshold):
    """circuit-tracer's rule with Python loops: influence by inverse, cumulative shares by sorting."""
    n = len(adjacency)

    def shares_of(matrix):
        return [[abs(float(value)) / max(sum(abs(float(v)) for v in row), 1e-10) for value in row] for row in matrix]

    def influence_of(shares):
        return (weights @ (np.linalg.inv(np.eye(n) - np.array(shares)) - np.eye(n))).tolist()

    def smallest_kept(values, threshold):
        total, running = sum(values), 0.0
        for value in sorted(values, reverse=True):
            running += value
            if running / total >= threshold:
                return value
        return min(values)

    node_influence = influence_of(shares_of(adjacency))
    limit = smallest_kept(node_influence, node_threshold)
    nodes = {i for i in range(n) if node_influence[i] >= limit or i >= n - n_protected}
    matrix = [[float(adjacency[t, s]) if t in nodes and s in nodes else 0.0 for s in range(n)] for t in range(n)]
    shares = shares_of(matrix)
    strength = [a + b for a, b in zip(influence_of(shares), weights.tolist(), strict=True)]
    scores = {(t, s): shares[t][s] * strength[t] for t in range(n) for s in range(n)}
    limit = smallest_kept(list(scores.values()), edge_threshold)
    edges = {edge for edge, score in scores.items() if score >= limit}
    while True:
        loose = {i for i in nodes if i < n - n_protected and not any(s == i for _, s in edges)}
        loose |= {i for i in nodes if i < n_features and not any(t == i for t, _ in edges)}
        if not loose:
            return nodes, edges
        nodes -= loose
        edges = {(t, s) for t, s in edges if t in nodes and s in nodes}


@pytest.mark.parametrize("node_threshold,edge_threshold", [(0.8, 0.98), (0.5, 0.9), (0.95, 0.6)])
def test_prune_equals_the_slow_twin(node_threshold, edge_threshold):
    adjacency, weights = random_graph(24, seed=3)
    # order here: 8 embeddings, 4 errors, 9 features, 3 logits by row; permuted to features, errors, embeddings, logits
    adjacency[:12] = 0
    order = [*range(12, 21), *range(8, 12), *range(8), *range(21, 24)]
    adjacency[21:, 21:] = 0
    adjacency = adjacency[order][:, order]
    is_feature, is_error = np.arange(24) < 9, (np.arange(24) >= 9) & (np.arange(24) < 13)
    kept = prune(
        Adjacency.of_dense(adjacency),
        weights,
        is_inner=is_feature,
        is_source=is_error,
        node_threshold=node_threshold,
        edge_threshold=edge_threshold,
    )
    nodes, edges = naive_prune(adjacency, weights, 9, 11, node_threshold, edge_threshold)
    assert set(np.flatnonzero(kept.nodes).tolist()) == nodes
    assert set(edges_of(adjacency, kept)) == {edge for edge in edges if adjacency[edge]}


def test_scores_by_hand():
    found = scores(SPARSE, LOGIT_WEIGHTS, is_error=ERROR, is_embedding=EMBEDDING)
    error, embedding = 0.045 + 0.225 / 4, 0.005 + 0.225 * 0.75 + 0.225
    assert found.replacement == pytest.approx(embedding / (embedding + error))
    weights = [0.225, 0.45, 0.005, error, embedding, 0.5]
    assert found.completeness == pytest.approx(1 - (0.225 / 4 + 0.5 * 0.09) / sum(weights))


def test_pruned_scores_book_what_was_cut_as_error():
    everything = Kept(np.ones(6, dtype=bool), np.ones(len(SPARSE), dtype=bool))
    masks = {"is_error": ERROR, "is_embedding": EMBEDDING}
    assert pruned_scores(SPARSE, LOGIT_WEIGHTS, everything, **masks) == pytest.approx(scores(SPARSE, LOGIT_WEIGHTS, **masks))
    without_a = Kept(np.array([0, 1, 0, 1, 1, 1], dtype=bool), np.zeros(len(SPARSE), dtype=bool))
    without_a.edges[SPARSE.places([(4, 1), (1, 5)])] = True
    found = pruned_scores(SPARSE, LOGIT_WEIGHTS, without_a, **masks)
    assert found.replacement == pytest.approx(0.225 / (0.225 + 0.225 + 0.05))


def test_what_memory_had_no_room_for_counts_as_error():
    """As one more error node, the last row and column, that takes the weight of the edges left out."""
    matrix = np.zeros((7, 7))
    matrix[:6, :6] = ADJACENCY
    matrix[1, 0] = matrix[1, 4] = 0
    matrix[1, 6] = 8
    weights, error, embedding = (np.append(values, values.dtype.type(0)) for values in (LOGIT_WEIGHTS, ERROR, EMBEDDING))
    error[6] = True
    order = [0, 1, 2, 3, 4, 6, 5]  # sources before targets
    expected = scores(
        Adjacency.of_dense(matrix[order][:, order]), weights[order], is_error=error[order], is_embedding=embedding[order]
    )
    part = SPARSE.where(SPARSE.target != 1)
    found = scores(part, LOGIT_WEIGHTS, is_error=ERROR, is_embedding=EMBEDDING)
    assert found == pytest.approx(expected)
    assert found.replacement < scores(SPARSE, LOGIT_WEIGHTS, is_error=ERROR, is_embedding=EMBEDDING).replacement


def test_total_effects_sum_over_all_paths():
    activations = np.array([2.0, 4.0, 1.0, 0, 0, 0])
    effects = total_effects(SPARSE, activations, {0: -2.0})
    assert effects.tolist() == pytest.approx([0, -4, 0, 0, 0, -9])
    on_logit = effects_on(SPARSE, activations, np.array([0, 0, 0, 0, 0, 1.0]))
    assert on_logit.tolist() == pytest.approx([9, 9, 0.1, 4.5 - 0.9, 3 * 4.5 - 4 * 9 / 4 + 0.1, 0])


def test_effects_on_targets_are_what_they_lose_feature_by_feature():
    matrix, weights = random_graph()
    activations = np.append(np.random.default_rng(1).lognormal(size=27), np.zeros(3))
    adjacency = Adjacency.of_dense(matrix)
    lost = [-(weights @ total_effects(adjacency, activations, {node: -activations[node]})) for node in range(27)]
    found = effects_on(adjacency, activations, weights)
    assert found[:27] == pytest.approx(np.array(lost)) and min(found) < 0 < max(found)


def test_thresholds_outside_0_to_1_are_refused():
    with pytest.raises(CltdbError, match="node_threshold"):
        pruned(1.2, 0.9)
