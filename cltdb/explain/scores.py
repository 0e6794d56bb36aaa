"""Detection and fuzzing: balanced accuracy of a judge that knows only the explanation, with a bootstrap interval over windows.

Detection: does the feature fire anywhere in this window? Fuzzing: are these marked tokens the ones on which it fires? The
negatives of fuzzing are windows in which it fires, with as many wrong tokens marked. A scorer asks the judge and returns a
`Trial`; `score` counts it.
"""

from typing import NamedTuple

import numpy as np

from cltdb.explain.examples import Windows
from cltdb.explain.judges import Judgements

BOOTSTRAPS = 1000


class Score(NamedTuple):
    """score, ci_low, ci_high are None where one class has no usable judgement; n judged windows; detail: JSON values."""

    score: float | None
    n: int
    n_failed: int
    ci_low: float | None
    ci_high: float | None
    detail: dict


class Trial(NamedTuple):
    """What was judged: the judge's answers, the truth bool [n], and what each window is (`positive` or a kind of negative)."""

    judged: Judgements
    truth: np.ndarray
    kinds: np.ndarray

    def with_shuffled_labels(self, *, rng):
        """The same answers against the truth of other windows, drawn without replacement: expected balanced accuracy 0.5."""
        judged = self.judged._replace(prompt_tokens=0, completion_tokens=0, cost_usd=0.0)
        return Trial(judged, rng.permutation(self.truth), np.full(len(self.truth), "shuffled"))


def detection(judge, explanation, examples, *, rng):
    """The Trial of detection on the test windows."""
    positives, negatives = examples.test_positives, examples.test_negatives
    together = Windows(*(np.concatenate(pair) for pair in zip(positives, negatives, strict=True)))
    truth = np.arange(len(together.documents)) < len(positives.documents)
    return Trial(judge.detect(explanation, together), truth, together.kinds)


def fuzzing(judge, explanation, examples, *, rng):
    """The Trial of fuzzing: each positive test window once with the right and once with wrong tokens marked."""
    windows = examples.test_positives
    right = windows.activations > 0
    wrong = wrong_marks(windows, rng)
    usable = np.nonzero(wrong.any(axis=1))[0]  # where every token fires none is wrong
    rows = np.concatenate([np.arange(len(right)), usable])
    truth = np.arange(len(rows)) < len(right)
    judged = judge.fuzz(explanation, windows.take(rows), np.concatenate([right, wrong[usable]]))
    return Trial(judged, truth, np.where(truth, "positive", "wrong_tokens"))


SCORERS = {"detection": detection, "fuzzing": fuzzing}
"""{name in `explain.scorers`: function}. Random numbers depend on the place here: a new one goes to the end."""


def wrong_marks(windows, rng):
    """As many random silent tokens of each window as it has firing ones, fewer where it has fewer; bool [n, window]."""
    fires = windows.activations > 0
    key = np.where(fires | (windows.tokens < 0), 2.0, rng.random(fires.shape))
    rank = np.argsort(np.argsort(key, axis=1), axis=1)
    return (rank < fires.sum(axis=1, keepdims=True)) & (key < 2)


def score(trial, *, rng):
    """The Score of a Trial."""
    judged, truth, kinds = trial
    answered = judged.answers >= 0
    right = {side: judged.answers[answered & (truth == side)] == side for side in (True, False)}
    tpr, tnr = (float(part.mean()) if len(part) else None for part in (right[True], right[False]))
    names, counts = np.unique(kinds[answered & ~truth], return_counts=True)
    detail = {
        "n_pos": len(right[True]),
        "n_neg": len(right[False]),
        "tpr": tpr,
        "tnr": tnr,
        "negatives": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        "prompt_tokens": judged.prompt_tokens,
        "completion_tokens": judged.completion_tokens,
        "cost_usd": judged.cost_usd,
        "error": judged.error,
    }
    low = high = accuracy = None
    if tpr is not None and tnr is not None:
        accuracy = (tpr + tnr) / 2
        low, high = bootstrap_interval(tpr, len(right[True]), tnr, len(right[False]), rng)
    return Score(accuracy, int(answered.sum()), int((~answered).sum()), low, high, detail)


def bootstrap_interval(tpr, n_pos, tnr, n_neg, rng):
    """95 % of balanced accuracies of windows drawn with replacement within each class (their counts of right answers are
    binomial)."""
    resampled = (rng.binomial(n_pos, tpr, BOOTSTRAPS) / n_pos + rng.binomial(n_neg, tnr, BOOTSTRAPS) / n_neg) / 2
    return tuple(float(value) for value in np.quantile(resampled, (0.025, 0.975)))
