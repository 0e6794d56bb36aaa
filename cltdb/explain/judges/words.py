"""Texts that were written elsewhere, judged by their words alone: no language model, no meaning.

What a text says the feature fires on are the words that it quotes; where it quotes none, its own words without STOP_WORDS. What stands after a
word of CONTEXT ("after", "with", …) says where and not on what, and counts only where nothing stands before: of "fires on 'is' or 'est' after
'capital'" the words are is and est, of "names of capital cities: Paris, Rome" they are capital, cities, paris, rome. A token matches where it
or the word that it is part of is one of them: quoted words to the letter, others also in another form, such as city and cities, Paris and
Parisian. Upper case does not count.

So a text about meaning ("words that express doubt") scores what its words are worth, which is about chance. A language model reads such a text.
"""

import re
from functools import cached_property
from itertools import zip_longest

import numpy as np

from cltdb.explain.judges import Answers

WORD = re.compile(r"[^\W_]+")
QUOTES = ("''", '""', "``", "‘’", "“”", "„“", "«»")
QUOTED = re.compile(
    "|".join(rf"(?<!\w){one}\s*((?:[^{one}{other}\n]|(?<=\w)['’](?=\w)){{1,60}}?)\s*{other}(?!\w)" for one, other in QUOTES)
)
CLAUSES = re.compile(r";|\. ")
CONTEXT = re.compile(r"\b(?:after|before|behind|follow(?:s|ed|ing)|preced(?:es|ed|ing)|with|within|when|where|if|near|in text)\b")
STOP_WORDS = frozenset(
    "a about all also an and any are as at be been being both but by can certain common context contexts describe describes describing different "
    "e either etc especially expression expressions feature features fire fires for from g has have he her his how i if in include includes "
    "including indicate indicates indicating instance instances into involving is it its kind kinds language like likely may mention mentions more "
    "most name names neuron no not occurrence occurrences of often on one or other others particular particularly phrase phrases presence reference "
    "references refer referring refers related relating she sort specific specifically such term terms text texts than that the their them then "
    "there these they thing things this those to token tokens type types typically use used usually variety various was we were what which "
    "while who whose will word words you your activate activates active appear appears associated concept concepts d discuss discussing ll m re s t ve".split()
)
LEAST_STEM, LONGEST_ENDING = 4, 3
"""A word is a form of another where it has the same stem, or the other's stem of so many letters and an ending of at most so many."""


def named_words(text):
    """(words that a text quotes, if it quotes none its own) in lower case, two sets of which one is empty: what it says a feature fires on."""
    parts = zip_longest(*(CONTEXT.split(clause) for clause in CLAUSES.split(text.casefold())), fillvalue="")
    for part in map(" ; ".join, parts):
        quoted = {next(filter(None, groups)) for groups in QUOTED.findall(part)}
        own = set(WORD.findall(part)) - STOP_WORDS
        if quoted or own:
            return (quoted | {word for piece in quoted for word in piece.split()}, set()) if quoted else (set(), own)
    return set(), set()


def stem_of(word):
    """A word without the ending of a plural, or -ing. Searches have finer rules (cltdb.database.stems); here another stem would be another score."""
    n_letters = len(word)
    if n_letters > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ss", "us", "is")):
        return word
    if n_letters > 4 and word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    if n_letters > 3 and word.endswith("s"):
        return word[:-1]
    return word[:-3] if n_letters > 5 and word.endswith("ing") else word


class WordJudge:
    """vocabulary: string per token id."""

    name = "words"

    def __init__(self, *, vocabulary):
        self.vocabulary = vocabulary

    async def detect(self, explanation, windows):
        return Answers(self.matches(explanation, windows.tokens).any(axis=1).astype(np.int8))

    async def fuzz(self, explanation, windows, marked):
        """Yes where at least half of the marked tokens match."""
        hits = (self.matches(explanation, windows.tokens) & marked).sum(axis=1)
        return Answers((2 * hits >= marked.sum(axis=1)).astype(np.int8))

    async def simulate(self, explanation, windows, training):
        """1 where a token matches, else 0."""
        return Answers(self.matches(explanation, windows.tokens).astype(float))

    async def choose_window(self, explanation, groups):
        """The window in which most tokens match; of several the first, which is a guess, as places are random."""
        chosen = [self.matches(explanation, windows.tokens).sum(axis=1).argmax() for windows in groups]
        return Answers(np.array(chosen, dtype=np.int8))

    async def choose_tokens(self, explanation, groups, purpose):
        """The list of which the largest share matches; of several the first."""
        shares = [[self.matches(explanation, np.array(tokens)[:, None]).mean() for tokens in group] for group in groups]
        return Answers(np.array([np.argmax(found) for found in shares], dtype=np.int8))

    def matches(self, explanation, tokens):
        """Where the words of an explanation match, bool as tokens [n, width]; -1 after the end matches nothing."""
        alone, words = self._alone[tokens], self._words(tokens)
        quoted, own = named_words(explanation.text)
        wanted = [self._numbers[word] for word in quoted if word in self._numbers]
        wanted += [number for word in own for number in self._forms.get(stem_of(word), ())]
        return (np.isin(alone, wanted) | np.isin(words, wanted)) & (tokens >= 0)

    # Words have numbers: the strings of the vocabulary, and the words of several tokens that windows hold.

    @cached_property
    def _alone(self):
        """Number of each token's string as a word of its own."""
        self._numbers, self._forms, self._spans = {}, {}, {}
        return np.array([*map(self._number, self.vocabulary), -1])

    @cached_property
    def _joints(self):
        """(whether a token can continue a word, whether a word can go on after it), bool per token id. Where no token of the vocabulary begins
        with a space, each is a word."""
        is_spaced = any(string.startswith(" ") for string in self.vocabulary)
        return tuple(
            np.array(
                [*(is_spaced and bool(WORD.fullmatch(string[place : place + 1 or None])) for string in self.vocabulary), False]
            )
            for place in (0, -1)
        )

    def _number(self, string):
        """The number of a word, a new one where it has none; `_forms` finds it by its stem and by what the stem may be a form of."""
        word = string.strip().casefold()
        if word not in self._numbers:
            self._numbers[word], stem = len(self._numbers), stem_of(word)
            for n_letters in {len(stem), *range(max(LEAST_STEM, len(stem) - LONGEST_ENDING), len(stem))}:
                self._forms.setdefault(stem[:n_letters], []).append(self._numbers[word])
        return self._numbers[word]

    def _words(self, tokens):
        """Number of the word that each token is part of [n, width]."""
        words, (continues, goes_on) = self._alone[tokens], self._joints
        inside = np.zeros(tokens.shape, dtype=bool)
        inside[:, 1:] = continues[tokens[:, 1:]] & goes_on[tokens[:, :-1]]
        inside, flat, found = np.append(inside.ravel(), False), tokens.ravel(), words.ravel()
        for start, stop in zip(
            np.nonzero(inside[1:] & ~inside[:-1])[0], np.nonzero(~inside[1:] & inside[:-1])[0] + 1, strict=True
        ):
            span = tuple(flat[start:stop].tolist())
            if span not in self._spans:
                self._spans[span] = self._number("".join(self.vocabulary[token] for token in span))
            found[start:stop] = self._spans[span]
        return found.reshape(tokens.shape)
