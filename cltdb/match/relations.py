"""What became of each feature from one dictionary to another, and how much of them was found again.

With threshold t, from an assignment of features of a to features of b:
- matched: the two are assigned to each other and their similarity is above t.
- split: the feature of b has no such partner, but its most similar feature of a is above t: that one is then several in b, the matched one and this.
- merged: the feature of a has no such partner, but its most similar feature of b is above t: several of a are one in b.
- appeared: a feature of b that is above t to none of a. vanished: a feature of a that is above t to none of b.
So a feature of a stands in one row as matched, merged or vanished, and in any number of rows as what was split; a feature of b in one as matched, split or
appeared, and in any number as what others were merged into.
"""

from typing import NamedTuple

import numpy as np

MATCHED, SPLIT, MERGED, APPEARED, VANISHED = "matched", "split", "merged", "appeared", "vanished"
RESAMPLES = 2000
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
    paired = assignment.similarity > threshold
    alone_first = np.setdiff1d(np.arange(len(assignment.highest_first)), assignment.first[paired])
    alone_second = np.setdiff1d(np.arange(len(assignment.highest_second)), assignment.second[paired])
    split, appeared = _parted(alone_second, assignment.highest_second > threshold)
    merged, vanished = _parted(alone_first, assignment.highest_first > threshold)
    rows = [
        (MATCHED, assignment.first[paired], assignment.second[paired], assignment.similarity[paired]),
        (SPLIT, assignment.nearest_first[split], split, assignment.highest_second[split]),
        (MERGED, merged, assignment.nearest_second[merged], assignment.highest_first[merged]),
        (APPEARED, np.full(len(appeared), -1), appeared, assignment.highest_second[appeared]),
        (VANISHED, vanished, np.full(len(vanished), -1), assignment.highest_first[vanished]),
    ]
    names, first, second, similarity = zip(*rows, strict=True)
    names = np.repeat(np.array(names, dtype=object), [len(part) for part in first])
    return Relations(*(np.concatenate(part) for part in (first, second, similarity)), names)


def _parted(places, mask):
    return places[mask[places]], places[~mask[places]]


class Share(NamedTuple):
    """How many of n were matched, as a share with its 95 % interval: of the bootstrap over the n, whose resampled number is binomial."""

    value: float
    low: float
    high: float


def share(n_matched, n, generator):
    """The `Share` of n_matched of n, n at least 1."""
    low, high = np.quantile(generator.binomial(n, n_matched / n, RESAMPLES) / n, (0.025, 0.975))
    return Share(n_matched / n, float(low), float(high))
