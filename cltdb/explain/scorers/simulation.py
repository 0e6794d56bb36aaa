"""Simulation: how strongly does the feature fire on each token? Score: correlation of predicted with true activations over the tokens of the
test windows, half of which are silent. Source: Bills et al., "Language models can explain neurons in language models" (2023)."""

import numpy as np

from cltdb.explain.examples import Windows
from cltdb.explain.scorers.trials import Trial, correlation

METHODS, CHANCE = {"input": "simulate"}, None
WINDOWS = 15
"""Of each class: a language model writes a number per token."""
OF_FEATURE = False
measure = correlation


def trial(subject, side, rng):
    positives, negatives = (
        part.take(slice(WINDOWS)) for part in (subject.examples.test_positives, subject.examples.test_negatives)
    )
    together = Windows(*(np.concatenate(pair) for pair in zip(positives, negatives, strict=True)))
    questions = together, subject.examples.training_positives
    return Trial(questions, together.activations, together.kinds, together.tokens >= 0)
