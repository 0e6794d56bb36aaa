"""Groups of five of which one is the right choice."""

import numpy as np

N_GROUPS, N_CHOICES = 20, 5


def placed(right, others, rng):
    """(groups, truth int8): each right item among N_CHOICES - 1 others at a random place. others [n groups, N_CHOICES - 1]; items are
    indices of any kind, groups an array [n groups, N_CHOICES] of them."""
    truth = rng.integers(N_CHOICES, size=len(right))
    groups = np.empty((len(right), N_CHOICES), dtype=np.asarray(others).dtype)
    for group, place, one, rest in zip(groups, truth, right, others, strict=True):
        group[:] = np.insert(rest, place, one)
    return groups, truth.astype(np.int8)
