"""What became of each feature from one dictionary to another, and how much of them was found again.

With threshold t, from an assignment of features of a to features of b:
- matched: the two are assigned to each other and their similarity is above t. The largest sum can leave two without a partner that are above t to each
  other (0.69 + 0.69 is more than 0.75 - 0.3): such pairs are matched too, the most similar first.
- split: the feature of b has no such partner, but its most similar feature of a is above t: that one is then several in b, the matched one and this.
- merged: the feature of a has no such partner, but its most similar feature of b is above t: several of a are one in b, the matched one and this.
- appeared: a feature of b that is above t to none of a. vanished: a feature of a that is above t to none of b.
So a feature of a stands in one row as matched, merged or vanished, and in any number of rows as what was split; a feature of b in one as matched, split or
appeared, and in any number as what others were merged into.
"""

from typing import NamedTuple

import numpy as np

from cltdb.intervals import wilson

MATCHED, SPLIT, MERGED, APPEARED, VANISHED = "matched", "split", "merged", "appeared", "vanished"
ABOVE = (0.7, 0.9)


class Relations(NamedTuple):
    """A row per relation [n]. first, second: places on the two sides, -1 where there is none; similarity: of the two; of what appeared or vanished the
    highest that it has; relation: texts."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    relation: np.ndarray


def relations(assignment, threshold):
    """The `Relations` of an `Assignment`: matched ones first, then split, merged, appeared, vanished."""
    matched = pairs_above(assignment, threshold)
    alone_first = np.setdiff1d(np.arange(len(assignment.highest_first)), matched[0])
    alone_second = np.setdiff1d(np.arange(len(assignment.highest_second)), matched[1])
    split, appeared = _parted(alone_second, assignment.highest_second > threshold)
    merged, vanished = _parted(alone_first, assignment.highest_first > threshold)
    rows = [
        (MATCHED, *matched),
        (SPLIT, assignment.nearest_first[split], split, assignment.highest_second[split]),
        (MERGED, merged, assignment.nearest_second[merged], assignment.highest_first[merged]),
        (APPEARED, np.full(len(appeared), -1), appeared, assignment.highest_second[appeared]),
        (VANISHED, vanished, np.full(len(vanished), -1), assignment.highest_first[vanished]),
    ]
    names, first, second, similarity = zip(*rows, strict=True)
    names = np.repeat(np.array(names, dtype=object), [len(part) for part in first])
    return Relations(*(np.concatenate(part) for part in (first, second, similarity)), names)


def pairs_above(assignment, threshold):
    """(first, second, similarity) of the pairs of an `Assignment` that are matched, by the first: assigned and above `threshold`, or above it to each
    other and without such a partner."""
    paired = assignment.similarity > threshold
    first, second, similarity = assignment.first[paired], assignment.second[paired], assignment.similarity[paired]
    free_first, free_second = (
        np.ones(len(assignment.highest_first), dtype=bool),
        np.ones(len(assignment.highest_second), dtype=bool),
    )
    free_first[first] = free_second[second] = False
    left = np.flatnonzero(free_first & (assignment.highest_first > threshold))
    right = np.flatnonzero(free_second & (assignment.highest_second > threshold))
    near = np.concatenate([left, assignment.nearest_first[right]]), np.concatenate([assignment.nearest_second[left], right])
    values = np.concatenate([assignment.highest_first[left], assignment.highest_second[right]])
    both = free_first[near[0]] & free_second[near[1]]
    more = []
    for place in np.flatnonzero(both)[np.argsort(-values[both], kind="stable")]:
        a, b = near[0][place], near[1][place]
        if free_first[a] and free_second[b]:
            free_first[a] = free_second[b] = False
            more.append(place)
    found = [np.concatenate([one, of[more]]) for one, of in ((first, near[0]), (second, near[1]), (similarity, values))]
    order = np.argsort(found[0], kind="stable")
    return tuple(one[order] for one in found)


def _parted(places, mask):
    return places[mask[places]], places[~mask[places]]


class Share(NamedTuple):
    """How many of n were matched, as a share with its 95 % interval, Wilson's."""

    value: float
    low: float
    high: float


def share(n_matched, n):
    """The `Share` of n_matched of n, n at least 1."""
    return Share(n_matched / n, *wilson(n_matched, n))
