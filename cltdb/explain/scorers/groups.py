"""Groups of five of which one is the right choice."""

import numpy as np

from cltdb.explain.scorers.trials import Trial

N_GROUPS, N_CHOICES = 20, 5
FEWEST_TOKENS = 2
"""Shorter lists are no question."""


def placed(right, others, rng):
    """(groups, truth int8): each right item among N_CHOICES - 1 others at a random place, each place as often as another: so shuffled truths
    are right by chance alone. others [n groups, N_CHOICES - 1]; items are indices of any kind, groups an array [n groups, N_CHOICES] of them."""
    truth = rng.permutation(np.arange(len(right)) % N_CHOICES)
    groups = np.empty((len(right), N_CHOICES), dtype=np.asarray(others).dtype)
    for group, place, one, rest in zip(groups, truth, right, others, strict=True):
        group[:] = np.insert(rest, place, one)
    return groups, truth.astype(np.int8)


def among_others(own, others, rng, *, purpose, shown=slice(None)):
    """The `Trial` of N_GROUPS groups: a feature's tokens among those of four others, none of which it has in common with them. None where there are
    fewer such others, or too few tokens.

    own: token ids; others [n features, n tokens], -1 where there are fewer; shown: which of each list are in the question.
    """
    apart = np.nonzero((others >= 0).any(axis=1) & ~np.isin(others, own).any(axis=1))[0]
    if len(apart) < N_CHOICES - 1 or len(own[shown]) < FEWEST_TOKENS:
        return None
    drawn = np.concatenate([rng.choice(apart, N_CHOICES - 1, replace=False) for _ in range(N_GROUPS)])
    lists = [own[shown], *(others[row][others[row] >= 0].tolist()[shown] for row in drawn)]
    groups, truth = placed(np.zeros(N_GROUPS, int), 1 + np.arange(len(drawn)).reshape(N_GROUPS, -1), rng)
    return Trial(([[lists[index] for index in group] for group in groups], purpose), truth, np.full(N_GROUPS, "positive"))
