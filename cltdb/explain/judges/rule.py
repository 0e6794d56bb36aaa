"""The rule that explains a feature, applied: exact, free, no call."""

import numpy as np

from cltdb.explain.judges import Answers
from cltdb.explain.rules import TokenView, token_classes


class RuleJudge:
    """label_names: of the codes in `Windows.labels`; vocabulary: string per token id."""

    name = "rule"

    def __init__(self, *, label_names, vocabulary):
        self.label_names, self.vocabulary = np.array([*label_names, None], dtype=object), vocabulary
        self.classes = token_classes(vocabulary)

    def matches(self, explanation, windows):
        """Where the rule matches, bool [n, width]."""
        return TokenView(windows.tokens, self.label_names[windows.labels], self.classes).matches(explanation.rule)

    async def detect(self, explanation, windows):
        return Answers(self.matches(explanation, windows).any(axis=1).astype(np.int8))

    async def fuzz(self, explanation, windows, marked):
        """Yes where the rule matches at least half of the marked tokens."""
        hits = (self.matches(explanation, windows) & marked).sum(axis=1)
        return Answers((2 * hits >= marked.sum(axis=1)).astype(np.int8))

    async def simulate(self, explanation, windows, training):
        """Where the rule matches, the mean activation of the tokens that it matches in training windows."""
        matched = training.activations[self.matches(explanation, training)]
        return Answers(np.where(self.matches(explanation, windows), matched.mean() if len(matched) else 0.0, 0.0))

    async def choose_window(self, explanation, groups):
        """The window in which the rule matches most tokens; of several the first, which is a guess, as places are random."""
        chosen = [self.matches(explanation, windows).sum(axis=1).argmax() for windows in groups]
        return Answers(np.array(chosen, dtype=np.int8))

    async def choose_tokens(self, explanation, groups, purpose):
        """The list that has most strings in common with the tokens that the rule names, spaces around them and case aside; of several the first,
        which is a guess."""
        named = self._strings(explanation.rule["promotes"])
        chosen = [np.argmax([len(named & self._strings(tokens)) for tokens in group]) for group in groups]
        return Answers(np.array(chosen, dtype=np.int8))

    def _strings(self, tokens):
        return {self.vocabulary[token].strip().casefold() for token in tokens}
