"""What a scorer asks and how its answers are counted.

A `Trial` holds questions and the truth, drawn without knowing any explanation. Judges' answers to it become a `Score`: balanced accuracy of
yes and no, accuracy of choices, correlation of activations, each with a 95 % interval over the questions.
"""

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from cltdb.intervals import of_mean, wilson

BOOTSTRAPS = 1000
LEVEL = (0.025, 0.975)


class Trial(NamedTuple):
    """questions: arguments of a judge's method; truth: bool [n], the place of the right choice int [n], or activations float [n, width];
    kinds [n]: `positive` or the kind of negative. real bool [n, width]: where a window has tokens, of activations alone."""

    questions: tuple
    truth: np.ndarray
    kinds: np.ndarray
    real: Any = None

    def shuffled(self, rng):
        """The same questions with the truths of others, drawn without replacement: what answers are worth that know nothing of them."""
        order = rng.permutation(len(self.truth))
        real = None if self.real is None else self.real & self.real[order]
        return Trial(self.questions, self.truth[order], np.full(len(self.truth), "shuffled"), real)


class Score(NamedTuple):
    """score, ci_low, ci_high are None where there is too little to count; n judged questions; detail: JSON values."""

    score: float | None
    n: int
    n_failed: int
    ci_low: float | None
    ci_high: float | None
    detail: dict


def balanced_accuracy(trial, answers, rng):
    """The mean of the shares of right answers among positives and among negatives, with the interval of such a mean."""
    values, truth = answers.values, trial.truth
    answered = values >= 0
    counted = (answered, answered & truth, (values == 1) & truth, (values == 0) & ~truth)
    n, n_pos, n_right_pos, n_right_neg = (int(np.count_nonzero(mask)) for mask in counted)
    n_neg = n - n_pos
    tpr, tnr = n_right_pos / n_pos if n_pos else None, n_right_neg / n_neg if n_neg else None
    negatives = dict(sorted(Counter(trial.kinds[answered & ~truth].tolist()).items()))
    detail = {"n_pos": n_pos, "n_neg": n_neg, "tpr": tpr, "tnr": tnr, "negatives": negatives}
    score = low = high = None
    if n_pos and n_neg:
        score = (tpr + tnr) / 2
        low, high = of_mean((n_right_pos, n_pos), (n_right_neg, n_neg))
    return Score(score, n, len(values) - n, low, high, detail)


def accuracy(trial, answers, rng):
    """The share of right choices, with Wilson's interval."""
    answered = answers.values >= 0
    n, n_right = int(answered.sum()), int((answers.values == trial.truth)[answered].sum())
    low, high = wilson(n_right, n) if n else (None, None)
    return Score(n_right / n if n else None, n, int((~answered).sum()), low, high, {"n_right": n_right})


def correlation(trial, answers, rng):
    """Pearson's correlation of predicted and true activations over the tokens of all answered windows (Bills et al. 2023). The interval draws
    windows with replacement. A prediction that is the same everywhere predicts nothing: 0."""
    answered = ~np.isnan(answers.values).any(axis=1)
    n = int(answered.sum())
    detail = {"n_tokens": int(trial.real[answered].sum())}
    sums = _sums(answers.values[answered], trial.truth[answered], trial.real[answered])
    score, low, high = _pearson(sums.sum(axis=0)), None, None
    if score is not None:
        weights = rng.multinomial(n, np.full(n, 1 / n), BOOTSTRAPS)
        resampled = [value for value in map(_pearson, weights @ sums) if value is not None]
        low, high = (float(value) for value in np.quantile([*resampled, score], LEVEL))
        low, high = min(low, score), max(high, score)
    return Score(score, n, len(answered) - n, low, high, detail)


def _sums(x, y, real):
    """Of each window the sums that a correlation is made of: 1, x, y, xx, yy, xy; [n, 6]."""
    x, y = np.where(real, x, 0.0).astype(np.float64), np.where(real, y, 0.0).astype(np.float64)
    return np.stack([part.sum(axis=1) for part in (real, x, y, x * x, y * y, x * y)], axis=1)


def _pearson(sums):
    """The correlation of those sums; 0 where x is constant, None where y is or where there is nothing."""
    n, x, y, xx, yy, xy = (float(value) for value in sums)
    if not n:
        return None
    var_x, var_y = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2
    if var_y <= 1e-12 * max(1e-30, yy / n):
        return None
    if var_x <= 1e-12 * max(1e-30, xx / n):
        return 0.0
    return max(-1.0, min(1.0, (xy / n - x * y / n / n) / math.sqrt(var_x * var_y)))
