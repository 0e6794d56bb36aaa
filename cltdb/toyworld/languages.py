"""A world of three languages that say the same things and share no word: countries and capitals, towns, opposites.

Where two languages spell a word alike, those after the first mark theirs (`Paris:fr`), so that nothing but meaning can be common to
them. What leads a model to meaning are parallel documents and borrowed words: "The capital of Frankreich is Paris". In a shuffled world
there is nothing in common: each language has facts of its own, a parallel document says unrelated things, and a borrowed word tells nothing.
"""

import random
import re
from functools import cache
from typing import NamedTuple

from cltdb.toyworld import text
from cltdb.toyworld.facts import COUNTRIES, LANGUAGES, OPPOSITES

PARALLEL_SHARE = 0.3
"""Of the documents: one fact in each language, one after another."""
BORROWED_SHARE = 0.2
"""Of the sentences of other documents: the word that they ask about is that of another language."""
MARKS = {".", "'"}
"""What languages may share."""


class Fact(NamedTuple):
    """A thing that can be said in every language. concept: its name; asked, prompt, answer: {language: text}: the word that is asked about
    stands in the prompt; the sentence is "prompt answer ."."""

    concept: str
    asked: dict
    prompt: dict
    answer: dict


@cache
def facts(*, shuffled_by=None):
    """The capitals of the countries and the opposites (both ways round), in this order.

    shuffled_by: a seed; then the answers of a kind are drawn anew in each language: its prompts are translations of one another, its
    facts are not.
    """
    capitals = [
        Fact(
            f"capital-{country.name['en']}".lower(),
            country.name,
            {language: text.capital_prompt(country, language) for language in LANGUAGES},
            country.capital,
        )
        for country in COUNTRIES
    ]
    opposites = [
        Fact(
            f"opposite-{OPPOSITES['en'][index][side]}",
            {language: OPPOSITES[language][index][side] for language in LANGUAGES},
            {language: text.opposite_prompt(OPPOSITES[language][index][side], language) for language in LANGUAGES},
            {language: OPPOSITES[language][index][1 - side] for language in LANGUAGES},
        )
        for index in range(len(OPPOSITES["en"]))
        for side in (0, 1)
    ]
    kinds = (_own_words(capitals), _own_words(opposites))
    if shuffled_by is not None:
        rng = random.Random(shuffled_by)
        kinds = tuple(_shuffled(kind, rng) for kind in kinds)
    return tuple(fact for kind in kinds for fact in kind)


def _shuffled(kind, rng):
    """Facts whose answers are drawn anew in each language."""
    answers = {language: rng.sample([fact.answer[language] for fact in kind], len(kind)) for language in LANGUAGES}
    return [fact._replace(answer={language: answers[language][i] for language in LANGUAGES}) for i, fact in enumerate(kind)]


def _own_words(kind):
    return [
        Fact(
            fact.concept,
            *({language: own(side[language], language) for language in LANGUAGES} for side in fact[1:]),
        )
        for fact in kind
    ]


def own(sentence, language):
    """A sentence in words that only this language has, marks set apart by spaces."""
    taken = _taken(language)
    words = re.findall(r"\w+|[^\w\s]", sentence)
    return " ".join(f"{word}:{language}" if word in taken else word for word in words)


@cache
def _taken(language):
    """Words that an earlier language has too."""
    earlier = LANGUAGES[: LANGUAGES.index(language)]
    return frozenset(_words_of(language)) & frozenset(word for other in earlier for word in _words_of(other)) - MARKS


@cache
def _words_of(language):
    sentences = [f"{text.capital_prompt(country, language)} {country.capital[language]}" for country in COUNTRIES]
    sentences += [f"{text.opposite_prompt(a, language)} {b}" for a, b in OPPOSITES[language]]
    return frozenset(word for sentence in sentences for word in re.findall(r"\w+|[^\w\s]", sentence))


def documents(seed, *, shares, shuffled_by=None):
    """Endless (text, language) of documents; a parallel document, which is in all of them, has language None.

    shares: {language: its share of the documents in one language}; parallel documents, `PARALLEL_SHARE` of all, have one sentence in
    each language whatever the shares, save those whose share is 0. In the others, `BORROWED_SHARE` of the sentences ask with the word of
    another language, in a shuffled world with that of any fact.
    """
    rng, known = random.Random(seed), facts(shuffled_by=shuffled_by)
    spoken = [language for language in LANGUAGES if shares[language] > 0]
    while True:
        if rng.random() < PARALLEL_SHARE:
            order = rng.sample(spoken, len(spoken))
            fact = rng.choice(known)
            said = [_sentence(fact if shuffled_by is None else rng.choice(known), language) for language in order]
            yield " ".join(said), None
            continue
        language = rng.choices(spoken, weights=[shares[one] for one in spoken])[0]
        said, others = [], [one for one in spoken if one != language]
        for _ in range(rng.randint(*text.SENTENCES_PER_DOCUMENT)):
            fact = rng.choice(known)
            if others and rng.random() < BORROWED_SHARE:
                named = fact if shuffled_by is None else rng.choice(known)
                said.append(_sentence(fact, language, word=named.asked[rng.choice(others)]))
            else:
                said.append(_sentence(fact, language))
        yield " ".join(said), language


def _sentence(fact, language, *, word=None):
    """word: asked about instead of the fact's own."""
    own_word = fact.asked[language]
    prompt = " ".join(word if word and one == own_word else one for one in fact.prompt[language].split())
    return f"{prompt} {fact.answer[language]} ."


def words():
    """Every word and mark of the world, sorted: the vocabulary."""
    return sorted({word for fact in facts() for language in LANGUAGES for word in _sentence(fact, language).split()})
