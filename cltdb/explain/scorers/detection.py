"""Detection: does the feature fire anywhere in this window? The judge sees the explanation and the text. Score: balanced accuracy.
Source: Paulo et al., "Automatically Interpreting Millions of Features in Large Language Models" (2024)."""

import numpy as np

from cltdb.explain.examples import Windows
from cltdb.explain.scorers.trials import Trial, balanced_accuracy

METHODS, CHANCE = {"input": "detect"}, 0.5
OF_FEATURE = False
measure = balanced_accuracy


def trial(subject, side, rng):
    """The test windows: those in which it fires, then those in which it is silent."""
    positives, negatives = subject.examples.test_positives, subject.examples.test_negatives
    together = Windows(*(np.concatenate(pair) for pair in zip(positives, negatives, strict=True)))
    return Trial((together,), np.arange(len(together.documents)) < len(positives.documents), together.kinds)
