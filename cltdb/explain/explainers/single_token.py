"""The token on which the feature fires most often, whatever stands around it. No call: what a context adds shows in comparison."""

import numpy as np

from cltdb.explain.judges import Explanation
from cltdb.explain.rules import describe_tokens
from cltdb.explain.subjects import windows_shortage

SIDE = "input"
shortage = windows_shortage


def explain(subjects):
    """An `Explanation` of each subject, with its rule."""
    return [by_tokens(subject, 1) for subject in subjects]


def by_tokens(subject, n):
    """That the feature fires on the n tokens on which it fires most often in its training windows."""
    training = subject.examples.training_positives
    tokens, counts = np.unique(training.tokens[training.activations > 0], return_counts=True)
    most = sorted(int(token) for token in tokens[np.argsort(-counts, kind="stable")[:n]])
    rule = {"clauses": [{"tokens": most, "conditions": []}]}
    return Explanation("fires on " + describe_tokens(most, subject.all.vocabulary), rule)
