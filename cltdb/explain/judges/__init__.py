"""Who answers the questions of scorers, given an explanation: the rule itself, the words of a text, or a language model.

A judge has some of the coroutines

    detect(explanation, windows)                does the feature fire anywhere in each window? [n]
    fuzz(explanation, windows, marked)          are the marked tokens, bool [n, width], those on which it fires? [n]
    simulate(explanation, windows, training)    its activation at each token, in any unit [n, width]
    choose_window(explanation, groups)          in which window of each group, Windows [n], does it fire? [n groups]
    choose_tokens(explanation, groups, purpose) which list of tokens of each group, lists of token ids, does it promote? [n groups]
    choose_intruder(explanation, groups)        in which window of each group, (Windows [n], marks), are the marks not its firings? [n groups]

Each returns `Answers`. A scorer asks judges that have its method. explanation: an `Explanation`; windows: examples.Windows; purpose: of
requests.
"""

from typing import NamedTuple

import numpy as np

NO_ANSWER = -1


class Explanation(NamedTuple):
    """text, and the rule (rules.py) where rules explained."""

    text: str
    rule: dict | None = None


class Answers(NamedTuple):
    """values: int8, or float of a simulation; -1, or NaN, where there is no usable answer. What the calls took, cost_usd None where unknown.
    error: of the last failed call."""

    values: np.ndarray
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    error: str | None = None
