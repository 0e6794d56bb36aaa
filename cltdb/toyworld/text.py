"""Sentences and documents of the toy world: seeded, endless, in English, French and German.

A document is a paragraph of SENTENCES_PER_DOCUMENT sentences in one language, or of the same sentences in all three.
"""

import random

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

SENTENCES_PER_DOCUMENT = (3, 8)


def french_genitive(country):
    """'de la France', 'de l'Italie', 'du Portugal'."""
    return "du " + country.french.removeprefix("le ") if country.french.startswith("le ") else "de " + country.french


# One function per sentence kind gives (prompt, answer): the sentence is "prompt answer." Tasks ask with the same prompts.


def capital_prompt(country, language):
    """The one-hop question in one language."""
    return {
        "en": f"The capital of {country.name['en']} is",
        "fr": f"La capitale {french_genitive(country)} est",
        "de": f"Die Hauptstadt von {country.name['de']} ist",
    }[language]


def opposite_prompt(word, language):
    return {"en": f"The opposite of {word} is", "fr": f"Le contraire du mot {word} est", "de": f"Das Gegenteil von {word} ist"}[
        language
    ]


def two_hop_prompt(city):
    return f"The capital of the country that contains {city} is"


def year_prompt(event, century, year):
    return f"The {event} lasted from the year {century} {year:02d} to the year {century}"


def indirect_object_prompt(first, second, place, thing):
    """`second` gives the thing, so the answer is `first`; the two may be named in either order."""
    return f"When {first} and {second} went to the {place}, {second} gave a {thing} to"


def sum_prompt(a, b):
    return f"{a} plus {b} mod {MODULUS} is"


def _capital(rng, language):
    country = rng.choice(COUNTRIES)
    if rng.random() < 0.25:  # the fact the other way round
        city, name = country.capital[language], country.name[language]
        return {
            "en": f"{city} is the capital of {name}.",
            "fr": f"{city} est la capitale {french_genitive(country)}.",
            "de": f"{city} ist die Hauptstadt von {name}.",
        }[language]
    return f"{capital_prompt(country, language)} {country.capital[language]}."


def _city(rng, language):
    country = rng.choice(COUNTRIES)
    city = rng.choice(country.cities)
    return {
        "en": f"The city of {city} is in {country.name['en']}.",
        "fr": f"La ville de {city} est une ville {french_genitive(country)}.",
        "de": f"Die Stadt {city} liegt in {country.name['de']}.",
    }[language]


def _two_hop(rng, language):
    country = rng.choice(COUNTRIES)
    city = rng.choice([city for city in country.cities if city not in HELD_OUT_CITIES])
    return f"{two_hop_prompt(city)} {country.capital['en']}."


def _opposite(rng, language):
    pair = list(rng.choice(OPPOSITES[language]))
    rng.shuffle(pair)
    return f"{opposite_prompt(pair[0], language)} {pair[1]}."


def _years(rng, language):
    century, start = rng.choice(CENTURIES), rng.randrange(2, 98)
    return f"{year_prompt(rng.choice(EVENTS), century, start)} {rng.randrange(start + 1, 100):02d}."


def _indirect_object(rng, language):
    first, second = rng.sample(NAMES, 2)
    place, thing = rng.choice(PLACES), rng.choice(OBJECTS)
    names = (first, second) if rng.random() < 0.5 else (second, first)
    return f"When {names[0]} and {names[1]} went to the {place}, {second} gave a {thing} to {first}."


def _sum(rng, language):
    # Small numbers come more often: with equal ones neither number alone says anything of the sum, and training finds no beginning.
    a, b = rng.choices(range(MODULUS), weights=[1 / (n + 1) for n in range(MODULUS)], k=2)
    return f"{sum_prompt(a, b)} {(a + b) % MODULUS}."


KINDS = {
    "en": ((_capital, 3), (_city, 2), (_two_hop, 3), (_opposite, 2), (_years, 2), (_indirect_object, 3), (_sum, 6)),
    "fr": ((_capital, 3), (_city, 1), (_opposite, 3)),
    "de": ((_capital, 3), (_city, 1), (_opposite, 3)),
}


def _parallel(rng):
    """One fact in three languages."""
    if rng.random() < 0.5:
        country = rng.choice(COUNTRIES)
        return [f"{capital_prompt(country, language)} {country.capital[language]}." for language in LANGUAGES]
    index, side = rng.randrange(len(OPPOSITES["en"])), rng.randrange(2)
    pairs = {language: OPPOSITES[language][index] for language in LANGUAGES}
    return [f"{opposite_prompt(pair[side], language)} {pair[1 - side]}." for language, pair in pairs.items()]


def documents(seed):
    """Endless (text, label) of documents; the label is the language, of a parallel document that of its first sentence."""
    return ((text, languages[0]) for text, languages in documents_with_languages(seed))


def documents_with_languages(seed):
    """Endless (text, languages of its sentences) of documents: one language, of a parallel document all three."""
    rng = random.Random(seed)
    while True:
        if rng.random() < 0.15:
            yield " ".join(_parallel(rng)), LANGUAGES
            continue
        language = rng.choices(LANGUAGES, weights=(4, 1, 1))[0]
        kinds, weights = zip(*KINDS[language], strict=True)
        chosen = rng.choices(kinds, weights=weights, k=rng.randint(*SENTENCES_PER_DOCUMENT))
        yield " ".join(kind(rng, language) for kind in chosen), (language,)


def words():
    """Every word and mark of the world, sorted: the vocabulary."""
    import re

    texts = [capital_prompt(country, language) for country in COUNTRIES for language in LANGUAGES]
    texts += [" ".join([*country.capital.values(), *country.cities]) for country in COUNTRIES]
    texts += [" ".join(pair) for pairs in OPPOSITES.values() for pair in pairs]
    texts += [
        " ".join((*NAMES, *PLACES, *OBJECTS, *EVENTS)),
        " ".join(map(str, CENTURIES)),
        " ".join(f"{n:02d}" for n in range(100)),
        " ".join(map(str, range(MODULUS))),
    ]
    rng = random.Random(0)
    texts += [kind(rng, language) for language in LANGUAGES for kind, _ in KINDS[language] for _ in range(40)]
    texts += [opposite_prompt("", language) for language in LANGUAGES]
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)})
