"""The judge of free texts without a language model: which words a text names, and where they match, against plain Python."""

import asyncio

import numpy as np
import pytest
from worlds.planted import VOCABULARY

from cltdb.explain.examples import Windows
from cltdb.explain.judges import Explanation
from cltdb.explain.judges.words import WORD, WordJudge, named_words, stem_of

PIECES = [
    " The",
    " capital",
    "s",
    " Par",
    "is",
    "ian",
    " city",
    " cit",
    "ies",
    " do",
    "n",
    "'t",
    ".",
    " ",
    "\\n",
    " is",
    " Rome",
    "[9]",
    "ß",
    " STRASSE",
]


@pytest.mark.parametrize(
    ("text", "quoted", "own"),
    [
        ("fires on 'is' or 'est' after 'capital'", "is est", ""),
        ("fires on any token after 'capital' with 'The' 2 tokens before", "capital", ""),
        ("fires on 'is' after 'a'; or on “ist” before 'b'", "is ist", ""),
        ("names of capital cities: Paris, Rome", "", "capital cities paris rome"),
        ("tokens following a number", "", "number"),
        ("punctuation such as '.' and \"don't\"", ". don't", ""),
        ("the users' and the dog's names", "", "users dog"),
        ("words that express doubt, when «Straße» stands near", "", "express doubt"),
        ("words and phrases", "", ""),
        ("", "", ""),
    ],
)  # fmt: skip
def test_words_that_a_text_names(text, quoted, own):
    assert named_words(text) == (set(quoted.split()), set(own.split()))


def slow_matches(text, tokens, vocabulary):
    """By the rule as the module says it, token by token."""
    quoted, own = named_words(text)
    joins = any(string.startswith(" ") for string in vocabulary)

    def means(string):
        word = string.strip().casefold()
        forms = [stem_of(word)[:n] for n in range(4, 99) if 0 <= len(stem_of(word)) - n <= 3] + [stem_of(word)]
        return word in quoted or any(stem_of(other) in forms for other in own)

    found = []
    for row in tokens.tolist():
        strings, groups = [vocabulary[token] for token in row if token >= 0], []
        for place, string in enumerate(strings):
            before = strings[place - 1][-1] if place else " "
            if joins and WORD.fullmatch(string[0]) and WORD.fullmatch(before):
                groups[-1].append(place)
            else:
                groups.append([place])
        hits = [False] * len(row)
        for group in groups:
            for place in group:
                hits[place] = means(strings[place]) or means("".join(strings[other] for other in group))
        found.append(hits)
    return np.array(found)


@pytest.mark.parametrize("vocabulary", [PIECES, VOCABULARY], ids=["pieces", "words"])
def test_matches_against_plain_python(vocabulary):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, len(vocabulary), (80, 12))
    tokens[rng.random(80) < 0.3, 9:] = -1
    judge, n = WordJudge(vocabulary=vocabulary), 0
    for text in (
        "'is' and 'n'",
        "capital cities, Paris",
        "strasse",
        "'.' or \"'t\"",
        "numbers such as 12",
        "w1, w2 and 'w3'",
        "doubt",
        "",
    ):
        expected = slow_matches(text, tokens, vocabulary)
        assert np.array_equal(judge.matches(Explanation(text), tokens), expected), text
        n += expected.any()
    assert n > 2


def windows(rows):
    tokens = np.array(rows)
    return Windows(tokens, *[np.zeros(len(tokens))] * 4)


def test_answers():
    judge, paris, rome, word = WordJudge(vocabulary=VOCABULARY), VOCABULARY.index("Paris"), VOCABULARY.index("Rome"), 0
    about, shown = Explanation("fires on 'paris' or 'Rome'"), windows([[paris, word, rome], [word, word, -1]])
    marked = np.array([[True, True, False], [True, True, False]])

    def asked(question):
        return asyncio.run(question).values.tolist()

    assert asked(judge.detect(about, shown)) == [1, 0]
    assert asked(judge.fuzz(about, shown, marked)) == [1, 0]
    assert asked(judge.simulate(about, shown, None)) == [[1, 0, 1], [0, 0, 0]]
    assert asked(judge.choose_window(about, [windows([[word], [paris]]), windows([[word], [word]])])) == [1, 0]
    assert asked(
        judge.choose_tokens(about, [[[word, word], [word, rome], [paris, word, word]], [[word], [word]]], "pick_one")
    ) == [1, 0]
