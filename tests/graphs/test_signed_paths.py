"""The strongest signed paths against a list of all paths, and the sum of all of them against a network built by hand."""

import numpy as np
import pytest

from cltdb.graphs.adjacency import Adjacency
from cltdb.graphs.signed_paths import SIGNS, SignedPaths


def all_paths(matrix, activations, is_input, node):
    """(weight, nodes) of every path from an input to `node`, one extended by one edge at a time; weight: its part in the node's input."""
    for source in np.flatnonzero(matrix[node]).tolist():
        if is_input[source]:
            yield matrix[node, source], (source, node)
        else:
            for weight, nodes in all_paths(matrix, activations, is_input, source):
                yield weight / activations[source] * matrix[node, source], (*nodes, node)


def random_graph(draw, n_nodes=14, n_inputs=4):
    """(matrix, activations, is_input): node i has edges from lower ones, the last node is no feature."""
    matrix = np.tril(draw.standard_normal((n_nodes, n_nodes)) * (draw.random((n_nodes, n_nodes)) < 0.6), -1)
    is_input = np.arange(n_nodes) < n_inputs
    is_input[n_inputs + 1] = True  # a feature whose incoming edges are not known
    matrix[is_input] = 0
    return (
        matrix,
        np.where(np.arange(n_nodes) < n_inputs, 0, draw.lognormal(size=n_nodes)) * (np.arange(n_nodes) < n_nodes - 1),
        is_input,
    )


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("max_length", [1, 3, 99])
def test_the_strongest_are_the_first_of_all_paths(sign, max_length, monkeypatch):
    monkeypatch.setattr("cltdb.graphs.signed_paths.BLOCK_EDGES", 7)
    for seed in range(8):
        matrix, activations, is_input = random_graph(np.random.default_rng(seed))
        every = list(all_paths(matrix, activations, is_input, 13))
        of_sign = {"both": every, "positive": [p for p in every if p[0] > 0], "negative": [p for p in every if p[0] < 0]}[sign]
        expected = sorted((p for p in of_sign if len(p[1]) - 1 <= max_length), key=lambda path: -abs(path[0]))
        paths = SignedPaths(Adjacency.of_dense(matrix), activations, is_input, max_length=max_length, sign=sign)
        mass = sum(abs(weight) for weight, _ in every)
        for n in (1, 5, 10_000):
            found = paths.to(13, n)
            assert [path.nodes for path in found] == [nodes for _, nodes in expected[:n]]
            np.testing.assert_allclose([path.weight for path in found], [weight for weight, _ in expected[:n]], rtol=1e-12)
            np.testing.assert_allclose(
                [path.share for path in found], [abs(weight) / mass for weight, _ in expected[:n]], rtol=1e-12
            )


def test_equal_paths_come_by_their_nodes_and_a_node_without_paths_has_none():
    matrix = np.zeros((5, 5))
    matrix[3, :3] = 1.0
    is_input = np.array([True, True, True, False, False])
    paths = SignedPaths(Adjacency.of_dense(matrix), np.zeros(5), is_input, max_length=6)
    assert [path.nodes for path in paths.to(3, 9)] == [(0, 3), (1, 3), (2, 3)] and paths.to(4, 9) == []


def test_all_paths_of_a_residual_network_without_attention_sum_to_its_value_less_biases():
    """Three layers of ReLU features that read and write a residual stream, an error in each: value of a target by running the network;
    less what it computes from biases alone, with the same features on."""
    draw, n_layers, n_features, d = np.random.default_rng(0), 3, 6, 5
    W_enc, W_dec = draw.standard_normal((2, n_layers, n_features, d))
    b_enc, b_dec = draw.standard_normal((n_layers, n_features)), draw.standard_normal((n_layers, d))
    x, errors, target = draw.standard_normal(d), draw.standard_normal((n_layers, d)), draw.standard_normal(d)

    def run(x, errors, on=None):
        activations, masks = [], []
        for layer in range(n_layers):
            h = W_enc[layer] @ x + b_enc[layer]
            masks.append(h > 0 if on is None else on[layer])
            activations.append(h * masks[-1])
            x = x + activations[-1] @ W_dec[layer] + b_dec[layer] + errors[layer]
        return target @ x, activations, masks

    value, activations, on = run(x, errors)
    biases, *_ = run(0 * x, 0 * errors, on)
    # nodes: features by layer, errors, the embedding, the target
    n = n_layers * n_features
    read = np.concatenate([*W_enc, np.zeros((n_layers + 1, d)), target[None]])
    written = np.concatenate([(np.array(activations)[..., None] * W_dec).reshape(n, d), errors, x[None], np.zeros((1, d))])
    written_in = np.array([*np.repeat(np.arange(n_layers), n_features), *range(n_layers), -1, n_layers])
    matrix = np.where(
        written_in < np.where(np.arange(len(read)) == n + n_layers + 1, n_layers, written_in)[:, None], read @ written.T, 0
    )
    matrix[n : n + n_layers + 1] = 0
    all_activations = np.concatenate([np.ravel(activations), np.zeros(n_layers + 2)])
    matrix[:n][all_activations[:n] == 0] = 0
    is_input = (np.arange(len(read)) >= n) & (np.arange(len(read)) <= n + n_layers)
    paths = SignedPaths(Adjacency.of_dense(matrix), all_activations, is_input, max_length=n_layers + 1)
    found = paths.to(len(read) - 1, 100_000)
    assert max(len(path.nodes) for path in found) == n_layers + 2 and abs(biases) > 0.1
    assert sum(path.weight for path in found) == pytest.approx(value - biases, abs=1e-10)
    assert sum(path.share for path in found) == pytest.approx(1)
