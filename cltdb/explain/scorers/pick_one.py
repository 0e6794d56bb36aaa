"""Pick one of five. Of an explanation of side input: in which of five windows does the feature fire? Of one of side output: which of five lists of
tokens does it promote? Score: accuracy; guessing gets 0.2. The explainer never saw what is shown: windows are of the test documents, of a
feature's promoted tokens it sees every second one, and this scorer the others."""

import numpy as np

from cltdb.explain.examples import Windows
from cltdb.explain.scorers.groups import N_CHOICES, N_GROUPS, among_others, placed
from cltdb.explain.scorers.trials import Trial, accuracy

METHODS, CHANCE = {"input": "choose_window", "output": "choose_tokens"}, 1 / N_CHOICES
OF_FEATURE = False
measure = accuracy


def trial(subject, side, rng):
    return (_windows if side == "input" else _tokens)(subject, rng)


def _windows(subject, rng):
    """N_GROUPS groups, fewer where there are fewer test windows: one in which it fires, four in which it is silent."""
    positives, negatives = subject.examples.test_positives, subject.examples.test_negatives
    n, n_silent = min(N_GROUPS, len(positives.documents)), len(negatives.documents)
    together = Windows(*(np.concatenate(pair) for pair in zip(negatives, positives, strict=True)))
    silent = np.stack([rng.choice(n_silent, N_CHOICES - 1, replace=False) for _ in range(n)])
    groups, truth = placed(n_silent + np.arange(n), silent, rng)
    return Trial(([together.take(rows) for rows in groups],), truth, np.full(n, "positive"))


def _tokens(subject, rng):
    """The promoted tokens that the explainer did not see, and those of four other features of the layer."""
    promoted = subject.all.effects[subject.layer][0]
    return among_others(subject.promoted, promoted, rng, purpose="pick_one", shown=slice(1, None, 2))
