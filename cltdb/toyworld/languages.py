"""A world of three languages that say the same things and share no token: countries and capitals, opposites.

What is asked about and what is answered is written in two pieces (`ba:fr ki:fr`), the other words are one token each. A language has 24
first and 12 second pieces; each first piece begins four or five of its 100 such words, drawn for each language by itself. So no piece means
anything alone: what a word means is known once its pieces have been put together, and how an answer begins is the language's own. Whoever
knows the language of an answer and nothing else gets its first piece right in one of 24 cases, and at most in 8 % by the most frequent one.

What leads a model to meaning are parallel documents and borrowed words: "The capital of Frankreich is Paris". In a shuffled world
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
FIRST_PIECES = tuple(consonant + vowel for vowel in "ao" for consonant in "bdfgklmnprst")
SECOND_PIECES = tuple(consonant + "i" for consonant in "bdfgklmnprst")


class Fact(NamedTuple):
    """A thing that can be said in every language. concept: its name; asked, prompt, answer: {language: tokens, set apart by spaces}: the word that
    is asked about stands in the prompt; the sentence is "prompt answer ."."""

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
    kinds = (_spelled(capitals), _spelled(opposites))
    if shuffled_by is not None:
        rng = random.Random(shuffled_by)
        kinds = tuple(_shuffled(kind, rng) for kind in kinds)
    return tuple(fact for kind in kinds for fact in kind)


def _shuffled(kind, rng):
    """Facts whose answers are drawn anew in each language."""
    answers = {language: rng.sample([fact.answer[language] for fact in kind], len(kind)) for language in LANGUAGES}
    return [fact._replace(answer={language: answers[language][i] for language in LANGUAGES}) for i, fact in enumerate(kind)]


def _spelled(kind):
    return [
        Fact(
            fact.concept,
            *({language: spelled(side[language], language) for language in LANGUAGES} for side in fact[1:]),
        )
        for fact in kind
    ]


def spelled(sentence, language):
    """A sentence in tokens, set apart by spaces."""
    pieces = _pieces(language)
    return " ".join(pieces.get(word, word) for word in re.findall(r"\w+|[^\w\s]", sentence))


@cache
def _pieces(language):
    """{word: "first second"} of what is asked about or answered; no two words have the same pieces."""
    found = [name[language] for country in COUNTRIES for name in (country.name, country.capital)]
    found += [word for pair in OPPOSITES[language] for word in pair]
    rng = random.Random(f"pieces of {language}")
    rng.shuffle(found)
    seconds = [rng.sample(SECOND_PIECES, len(SECOND_PIECES)) for _ in FIRST_PIECES]
    drawn = {}
    for number, word in enumerate(found):
        turn, first = divmod(number, len(FIRST_PIECES))
        drawn[word] = f"{FIRST_PIECES[first]}:{language} {seconds[first][turn]}:{language}"
    return drawn


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
    prompt = fact.prompt[language] if word is None else fact.prompt[language].replace(fact.asked[language], word)
    return f"{prompt} {fact.answer[language]} ."


def words():
    """Every token of the world, sorted: the vocabulary."""
    return sorted({word for fact in facts() for language in LANGUAGES for word in _sentence(fact, language).split()})
