"""The strongest paths between two nodes, against a list of all paths."""

import numpy as np
import pytest

from cltdb.graphs.between import paths_between


def all_paths(edges, source, target):
    """(strength, nodes, weights) of every path: one extended by one edge at a time."""
    if source == target:
        yield 1.0, (source,), ()
        return
    for begin, end, weight, share in edges:
        if end == target and share > 0:
            for strength, nodes, weights in all_paths(edges, source, begin):
                yield strength * share, (*nodes, end), (*weights, weight)


@pytest.mark.parametrize("seed", range(5))
def test_strongest_paths_are_the_first_of_all_paths(seed):
    draw = np.random.default_rng(seed)
    edges = [
        (source, target, float(draw.normal()), float(draw.choice([0, 0.1, 0.25, 0.5])))
        for target in range(9)
        for source in range(target)
        if draw.random() < 0.6
    ]
    names = {node: int(number) for node, number in enumerate(draw.permutation(100)[:9])}  # ids that say nothing of the order
    order = {names[node]: node for node in range(9)}
    edges = [(names[source], names[target], weight, share) for source, target, weight, share in edges]
    begin, end = names[0], names[8]
    expected = sorted(all_paths(edges, begin, end), key=lambda path: (-path[0], path[1]))
    for n in (1, 4, 1000):
        found = paths_between(edges, order, begin, end, n=n)
        assert [path.nodes for path in found] == [nodes for _, nodes, _ in expected[:n]]
        assert [path.weights for path in found] == [weights for *_, weights in expected[:n]]
        np.testing.assert_allclose([path.strength for path in found], [strength for strength, *_ in expected[:n]], rtol=1e-12)


def test_no_path_against_the_edges_or_from_elsewhere():
    edges = [(0, 1, 1.0, 1.0), (1, 2, -1.0, 0.5)]
    order = {0: 0, 1: 1, 2: 2, 3: 3}
    assert paths_between(edges, order, 2, 0, n=3) == paths_between(edges, order, 0, 3, n=3) == []
    [path] = paths_between(edges, order, 0, 2, n=3)
    assert path == (0.5, (0, 1, 2), (1.0, -1.0))
