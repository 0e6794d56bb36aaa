"""Questions with right answers and wrong foils, for every circuit the toy world is known to hold."""

import random
from typing import NamedTuple

from cltdb.toyworld import text
from cltdb.toyworld.facts import (
    CENTURIES,
    COUNTRIES,
    EVENTS,
    HELD_OUT_CITIES,
    LANGUAGES,
    MODULUS,
    NAMES,
    OBJECTS,
    OPPOSITES,
    PLACES,
)


class Prompt(NamedTuple):
    """A prompt without BOS, the words that answer it rightly and some that do not."""

    text: str
    answers: tuple
    foils: tuple


class Task(NamedTuple):
    """name: what is asked; prompts of one kind."""

    name: str
    prompts: tuple


def tasks(seed, *, n_prompts=200):
    """Every task, `n_prompts` drawn for those with more combinations than that."""
    rng = random.Random(seed)
    return (
        _capitals(),
        _two_hop("two_hop", [c for country in COUNTRIES for c in country.cities if c not in HELD_OUT_CITIES]),
        _two_hop("two_hop_held_out", HELD_OUT_CITIES),
        _opposites(),
        _years(rng, n_prompts),
        _indirect_objects(rng, n_prompts),
        _sums(),
        _parallel(),
    )


def _foils(answer, candidates, n=3):
    """The n candidates after the answer, in order."""
    candidates = list(dict.fromkeys(candidates))
    start = candidates.index(answer)
    return tuple(candidates[(start + step) % len(candidates)] for step in range(1, n + 1))


def _capital(country, language):
    answer = country.capital[language]
    return Prompt(
        text.capital_prompt(country, language), (answer,), _foils(answer, [other.capital[language] for other in COUNTRIES])
    )


def _capitals():
    return Task("capital", tuple(_capital(country, language) for country in COUNTRIES for language in LANGUAGES))


def _two_hop(name, cities):
    home = {city: country for country in COUNTRIES for city in country.cities}
    capitals = [country.capital["en"] for country in COUNTRIES]
    return Task(
        name,
        tuple(
            Prompt(text.two_hop_prompt(city), (home[city].capital["en"],), _foils(home[city].capital["en"], capitals))
            for city in cities
        ),
    )


def _opposites():
    prompts = []
    for language in LANGUAGES:
        every = [word for pair in OPPOSITES[language] for word in pair]
        for pair in OPPOSITES[language]:
            prompts += [Prompt(text.opposite_prompt(a, language), (b,), _foils(b, every)) for a, b in (pair, pair[::-1])]
    return Task("opposite", tuple(prompts))


def _years(rng, n_prompts):
    """Right is any later two-digit year, wrong the same or an earlier one."""
    prompts = []
    for _ in range(n_prompts):
        start = rng.randrange(2, 98)
        prompts.append(
            Prompt(
                text.year_prompt(rng.choice(EVENTS), rng.choice(CENTURIES), start),
                tuple(f"{year:02d}" for year in range(start + 1, 100)),
                tuple(f"{year:02d}" for year in range(start + 1)),
            )
        )
    return Task("greater_than", tuple(prompts))


def _indirect_objects(rng, n_prompts):
    prompts = []
    for _ in range(n_prompts):
        first, second = rng.sample(NAMES, 2)
        prompt = text.indirect_object_prompt(first, second, rng.choice(PLACES), rng.choice(OBJECTS))
        if rng.random() < 0.5:
            prompt = prompt.replace(f"When {first} and {second}", f"When {second} and {first}")
        prompts.append(Prompt(prompt, (first,), (second,)))
    return Task("indirect_object", tuple(prompts))


def _sums():
    digits = [str(n) for n in range(MODULUS)]
    return Task(
        "modular_sum",
        tuple(
            Prompt(text.sum_prompt(a, b), (digits[(a + b) % MODULUS],), _foils(digits[(a + b) % MODULUS], digits))
            for a in range(MODULUS)
            for b in range(MODULUS)
        ),
    )


def translations():
    """Yields (kind, concept, language, `Prompt`): the same questions in every language, one concept after another; kind: capital or
    opposite."""
    for country in COUNTRIES:
        for language in LANGUAGES:
            yield "capital", f"capital of {country.name['en']}", language, _capital(country, language)
    for index, (concept, _) in enumerate(OPPOSITES["en"]):
        for language in LANGUAGES:
            word, answer = OPPOSITES[language][index]
            yield "opposite", f"opposite of {concept}", language, Prompt(text.opposite_prompt(word, language), (answer,), (word,))


def _parallel():
    """The same question in three languages, one after another."""
    return Task("translation_parallel", tuple(prompt for *_, prompt in translations()))
