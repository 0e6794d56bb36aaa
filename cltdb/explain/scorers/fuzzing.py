"""Fuzzing: are these marked tokens the ones on which the feature fires? The negatives are windows in which it fires, with as many wrong tokens
marked. Score: balanced accuracy. Source: Paulo et al. (2024), with active negatives."""

import numpy as np

from cltdb.explain.scorers.trials import Trial, balanced_accuracy

METHODS, CHANCE = {"input": "fuzz"}, 0.5
OF_FEATURE = False
measure = balanced_accuracy


def trial(subject, side, rng):
    """Each positive test window once with the right and once with wrong tokens marked."""
    windows = subject.examples.test_positives
    right = windows.activations > 0
    wrong = random_marks(windows, right.sum(axis=1), rng)
    usable = np.nonzero(wrong.any(axis=1))[0]  # where every token fires none is wrong
    rows = np.concatenate([np.arange(len(right)), usable])
    truth = np.arange(len(rows)) < len(right)
    marked = np.concatenate([right, wrong[usable]])
    return Trial((windows.take(rows), marked), truth, np.where(truth, "positive", "wrong_tokens"))


def random_marks(windows, n_marks, rng):
    """n_marks [n] random silent tokens of each window, fewer where it has fewer; bool [n, width]."""
    key = np.where((windows.activations > 0) | (windows.tokens < 0), 2.0, rng.random(windows.tokens.shape))
    rank = np.argsort(np.argsort(key, axis=1), axis=1)
    return (rank < n_marks[:, None]) & (key < 2)
