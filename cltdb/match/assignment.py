"""One feature of a dictionary to one of another, so that the similarities of the pairs have the largest sum. Knows nothing of dictionaries.

Up to EXACT features a side this is the assignment over all pairs (Hungarian method; scipy's linear_sum_assignment). Above, it is the best over the pairs
of similarity `floor` or more, of each feature of the first dictionary the MOST strongest of them, and all others count as 0: pairs that are no match at
all can then no longer keep two features apart that are one. No similarities are held beyond a block of them.
"""

from typing import NamedTuple

import numpy as np

EXACT, FLOOR, MOST = 4096, 0.5, 32
"""Measured on one core: 4,096 features a side take 0.5 s where most have a partner and 1.3 s where none has, and the time grows faster than the square;
the sparse form takes 0.02 and 0.1 s."""


class Assignment(NamedTuple):
    """first, second [n]: pairs that were assigned, by their place on each side, by the first; similarity [n].

    nearest_second, highest_first [n_first]: of each on the first side the place of the most similar on the second, and that similarity;
    nearest_first, highest_second [n_second]: the same of the second side.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    nearest_second: np.ndarray
    highest_first: np.ndarray
    nearest_first: np.ndarray
    highest_second: np.ndarray


def assign(blocks, n_first, n_second, *, floor=FLOOR):
    """The `Assignment` of n_first to n_second, both at least 1. blocks: their similarities (-1 to 1), float32 arrays [rows, n_second] that follow one
    another. floor: above 0; of more than EXACT features weaker pairs are not assigned."""
    nearest_second, highest_first, kept = [], [], []
    nearest_first, highest_second = np.zeros(n_second, dtype=np.int64), np.full(n_second, -2, dtype=np.float32)
    start, is_exact = 0, max(n_first, n_second) <= EXACT
    for block in blocks:
        nearest_second.append(block.argmax(axis=1))
        highest_first.append(np.take_along_axis(block, nearest_second[-1][:, None], axis=1)[:, 0])
        nearest, highest = block.argmax(axis=0), block.max(axis=0)
        better = highest > highest_second
        nearest_first[better], highest_second[better] = start + nearest[better], highest[better]
        kept.append(block if is_exact else _strong(block, start, floor))
        start += len(block)
    pairs = (
        _over_all(np.concatenate(kept))
        if is_exact
        else _over_strong(*map(np.concatenate, zip(*kept, strict=True)), n_first, n_second)
    )
    return Assignment(*pairs, np.concatenate(nearest_second), np.concatenate(highest_first), nearest_first, highest_second)


def _over_all(similarities):
    from scipy.optimize import linear_sum_assignment

    first, second = linear_sum_assignment(similarities, maximize=True)
    return first, second, similarities[first, second]


def _strong(block, start, floor):
    """(first, second, similarity) of the pairs of a block that count."""
    strong = block >= floor
    for row in np.flatnonzero(strong.sum(1) > MOST):
        strong[row] = False
        strong[row, np.argpartition(-block[row], MOST)[:MOST]] = True
    first, second = strong.nonzero()
    return first + start, second, block[first, second]


def _over_strong(first, second, similarity, n_first, n_second):
    """The best assignment over some pairs. Each on the first side may go without: to a place of its own, which counts as a similarity of 0."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    own = np.arange(n_first)
    costs = np.concatenate([2.0 - similarity, np.full(n_first, 2.0)])  # stored zeros would be no edges
    places = np.concatenate([first, own]), np.concatenate([second, n_second + own])
    rows, columns = min_weight_full_bipartite_matching(csr_matrix((costs, places), shape=(n_first, n_second + n_first)))
    paired = columns < n_second
    rows, columns = rows[paired], columns[paired].astype(np.int64)
    place = np.searchsorted(first * n_second + second, rows * np.int64(n_second) + columns)  # the pairs stand in this order
    return rows, columns, similarity[place]
