"""Intruder: which of five windows does not belong to the others? The judge sees no explanation: this scores how coherent a feature is. Four windows
show where it fires, in the fifth as many tokens are marked at random. Score: accuracy; guessing gets 0.2. Needs a language model.
Source: Paulo and Belrose, "Evaluating SAE interpretability without explanations" (2025)."""

import numpy as np

from cltdb.explain.examples import Windows
from cltdb.explain.scorers.fuzzing import random_marks
from cltdb.explain.scorers.groups import N_CHOICES, N_GROUPS, placed
from cltdb.explain.scorers.trials import Trial, accuracy

METHODS, CHANCE = {"input": "choose_intruder"}, 1 / N_CHOICES
OF_FEATURE = True
measure = accuracy


def trial(subject, side, rng):
    """N_GROUPS groups, fewer where there are fewer silent windows."""
    positives, negatives = subject.examples.test_positives, subject.examples.test_negatives
    n, n_firing = min(N_GROUPS, len(negatives.documents)), len(positives.documents)
    together = Windows(*(np.concatenate(pair) for pair in zip(positives, negatives, strict=True)))
    typical = max(1, int(np.median((positives.activations > 0).sum(axis=1))))
    marks = random_marks(negatives, np.full(len(negatives.documents), typical), rng)
    marked = np.concatenate([positives.activations > 0, marks])
    firing = np.stack([rng.choice(n_firing, N_CHOICES - 1, replace=False) for _ in range(n)])
    groups, truth = placed(n_firing + np.arange(n), firing, rng)
    return Trial(([(together.take(rows), marked[rows]) for rows in groups],), truth, np.full(n, "intruder"))
