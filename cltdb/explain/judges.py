"""Who says, given an explanation, whether a feature fires: the rule itself, or a language model that reads the text."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cltdb.explain.prompts import WINDOWS_PER_QUESTION, judge_prompt, read_judgements, window_text
from cltdb.explain.rules import TokenView
from cltdb.harvest.hashing import hash64

PARALLEL_CALLS = 8


class Explanation(NamedTuple):
    """text, and the rule (rules.py) where rules explained."""

    text: str
    rule: dict | None = None


class Judgements(NamedTuple):
    """answers int8 [n]: 1 yes, 0 no, -1 no usable answer; what the calls took; `error` of the last failed call."""

    answers: np.ndarray
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    error: str | None = None


class RuleJudge:
    """Applies the rule: exact, free, no call."""

    def __init__(self, *, label_names, classes):
        self.label_names, self.classes = np.array([*label_names, None], dtype=object), classes

    def matches(self, explanation, windows):
        return TokenView(windows.tokens, self.label_names[windows.labels], self.classes).matches(explanation.rule)

    def detect(self, explanation, windows):
        """Does the feature fire anywhere in each window?"""
        return Judgements(self.matches(explanation, windows).any(axis=1).astype(np.int8))

    def fuzz(self, explanation, windows, marked):
        """Are at least half of the marked tokens, bool [n, window], ones on which the feature fires?"""
        hits = (self.matches(explanation, windows) & marked).sum(axis=1)
        return Judgements((2 * hits >= marked.sum(axis=1)).astype(np.int8))


class LanguageModelJudge:
    """Asks a language model about a few windows at a time, in mixed order."""

    def __init__(self, caller, *, vocabulary, seed):
        self.caller, self.vocabulary, self.seed = caller, vocabulary, seed

    def detect(self, explanation, windows):
        return self._ask(explanation, [window_text(tokens, self.vocabulary) for tokens in windows.tokens], fuzzing=False)

    def fuzz(self, explanation, windows, marked):
        texts = [window_text(tokens, self.vocabulary, marks) for tokens, marks in zip(windows.tokens, marked, strict=True)]
        return self._ask(explanation, texts, fuzzing=True)

    def _ask(self, explanation, texts, *, fuzzing):
        order = np.argsort(hash64(self.seed, np.arange(len(texts))), kind="stable")
        groups = [order[first : first + WINDOWS_PER_QUESTION] for first in range(0, len(order), WINDOWS_PER_QUESTION)]
        prompts = [judge_prompt(explanation.text, [texts[index] for index in group], fuzzing=fuzzing) for group in groups]
        with ThreadPoolExecutor(PARALLEL_CALLS) as pool:
            try:
                replies = list(pool.map(self.caller.ask, prompts))
            except BaseException:  # of which Ctrl-C is one: no call waits to be tried again
                self.caller.stop()
                raise
        answers = np.full(len(texts), -1, dtype=np.int8)
        for group, reply in zip(groups, replies, strict=True):
            if reply.text is not None:
                answers[group] = read_judgements(reply.text, len(group))
        costs = [reply.cost_usd for reply in replies if reply.text is not None or reply.prompt_tokens]
        return Judgements(
            answers,
            sum(reply.prompt_tokens for reply in replies),
            sum(reply.completion_tokens for reply in replies),
            None if None in costs else sum(costs),
            next((reply.error for reply in reversed(replies) if reply.error), None),
        )
