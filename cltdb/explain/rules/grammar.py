"""Rules: what a feature fires on, as predicates over the tokens of a window.

A rule is a list of clauses; it matches a position where any clause does. A clause is a set of tokens (or None: any token) and
conditions, all of which must hold. As JSON values: `{"clauses": [{"tokens": [7, 9], "conditions": [{"kind": "previous",
...}]}]}`. Source: token, bigram and context predicates as in rule-based explanations of neurons; grammar in the spirit of
"semantic regexes".
"""

from functools import cached_property

import numpy as np

END_OF_SENTENCE = (".", "!", "?", "…", "。")
CLASSES = ("number", "capitalised", "lower-case", "sentence end", "punctuation", "other")


def token_class(string):
    """The index in CLASSES of a token's string."""
    text = string.strip()
    if text in END_OF_SENTENCE:
        return CLASSES.index("sentence end")
    if text and all(character.isdigit() for character in text):
        return CLASSES.index("number")
    if text[:1].isupper():
        return CLASSES.index("capitalised")
    if text[:1].islower():
        return CLASSES.index("lower-case")
    if text and not any(character.isalnum() for character in text):
        return CLASSES.index("punctuation")
    return CLASSES.index("other")


def token_classes(strings):
    """int8 class per token id of a list of strings, and -1 at the end, so that index -1 (no token) has no class."""
    return np.array([*(token_class(string) for string in strings), -1], dtype=np.int8)


class TokenView:
    """Windows as rules see them. tokens [n, window], -1 after the end; labels: a name or None per window; classes:
    token_classes."""

    def __init__(self, tokens, labels, classes):
        self.tokens, self.labels, self.classes = tokens, labels, classes
        self._index, self._shifted = np.arange(tokens.shape[1]), {}

    @cached_property
    def _last_end(self):
        """Index of the last end of a sentence before each position."""
        return self._last_before(self.class_at(0) == CLASSES.index("sentence end"))

    def token_at(self, back):
        """The token `back` places before each position; -1 before the window."""
        if not back:
            return self.tokens
        if back not in self._shifted:
            shifted = np.full_like(self.tokens, -1)
            shifted[:, back:] = self.tokens[:, :-back]
            self._shifted[back] = np.where(self.tokens >= 0, shifted, -1)
        return self._shifted[back]

    def one_of(self, wanted, *, back=0):
        """True where the token `back` places before is one of the wanted ones."""
        table = np.zeros(len(self.classes), dtype=bool)  # its last entry stands for no token
        table[wanted] = True
        return table[self.token_at(back)]

    def class_at(self, back):
        return self.classes[self.token_at(back)]

    def _last_before(self, mask):
        """Index of the last True before each position, -1 where there is none."""
        last = np.maximum.accumulate(np.where(mask, self._index, -1), axis=1)
        return np.concatenate([np.full((len(mask), 1), -1), last[:, :-1]], axis=1)

    def seen(self, token, *, in_sentence):
        """True where `token` stands earlier in the window, or in the same sentence of it."""
        last = self._last_before(self.tokens == token)
        return last > self._last_end if in_sentence else last >= 0

    def repeated(self):
        """True where the token stands earlier in the window."""
        return np.stack(
            [(self.tokens[:, :place] == self.tokens[:, place : place + 1]).any(axis=1) for place in range(self.tokens.shape[1])],
            axis=1,
        ) & (self.tokens >= 0)

    def repeated_pair(self):
        """True where the token and the one before it stand side by side earlier in the window."""
        before, found = self.token_at(1), np.zeros(self.tokens.shape, dtype=bool)
        for place in range(2, self.tokens.shape[1]):
            same = (self.tokens[:, 1:place] == self.tokens[:, place, None]) & (before[:, 1:place] == before[:, place, None])
            found[:, place] = same.any(axis=1)
        return found & (self.tokens >= 0)

    def holds(self, condition):
        """Where a condition holds, bool [n, window]."""
        kind = condition["kind"]
        if kind == "previous":
            return self.one_of(condition["tokens"], back=condition["back"])
        if kind == "class":
            return self.class_at(condition["back"]) == CLASSES.index(condition["class"])
        if kind in ("in_sentence", "in_window"):
            return self.seen(condition["token"], in_sentence=kind == "in_sentence")
        if kind == "label":
            return np.repeat((self.labels == condition["label"])[:, None], self.tokens.shape[1], axis=1)
        if kind == "repeated_pair":
            return self.repeated_pair()
        assert kind == "repeated", kind
        return self.repeated()

    def matches(self, rule):
        """Where a rule matches, bool [n, window]."""
        matched = np.zeros(self.tokens.shape, dtype=bool)
        for clause in rule["clauses"]:
            where = self.tokens >= 0 if clause["tokens"] is None else self.one_of(clause["tokens"])
            for condition in clause["conditions"]:
                where = where & self.holds(condition)
            matched |= where
        return matched
