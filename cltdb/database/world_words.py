"""What a search knows of the world beyond `glossary.txt`: countries with their cities (`countries.txt`), words of other languages (`translations.txt`)."""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
LANGUAGES = ("french", "german", "spanish")
CITIES, CAPITALS = ("city", "town"), ("capital", "capital city")
CONTINENTS = {
    "europe": "european",
    "asia": "asian",
    "africa": "african",
    "oceania": "australasian",
    "north america": "north american",
    "south america": "south american",
}


@cache
def cities():
    """{("italian", "city"): cities, ("capital", "africa"): cities, ...} of countries and continents, by what they and their people are called."""
    found = {}
    for country, people, _, capital, others, continent in _countries():
        for place, of_place in ((country, people), (continent, CONTINENTS[continent])):
            for kinds, named in ((CAPITALS if place == continent else (), capital), (CITIES, f"{capital} {others}")):
                for kind in kinds:
                    for phrase in {f"{kind} {place}", f"{place} {kind}", f"{of_place} {kind}", f"{kind} {of_place}"}:
                        found.setdefault(tuple(phrase.split()), []).extend(named.split())
    return {phrase: tuple(dict.fromkeys(named))[:192] for phrase, named in found.items()}


def into_others(word, language=None):
    """[(word of another language, that language)] of an English word, in one language or in all of `LANGUAGES`."""
    return [pair for pair in _translations()[0].get(word, ()) if pair[0] != word and language in (None, pair[1])]


def into_english(word):
    """[(word, its language)]: a word of one of `LANGUAGES` in English (None), and in the others of them."""
    english = _translations()[1].get(word, ())
    found = [(name, None) for name in english] + [pair for name in english for pair in into_others(name)]
    return [pair for pair in dict.fromkeys(found) if pair[0] != word]


@cache
def _translations():
    """({English word: [(word, language)]}, {word: [English word]})"""
    of_english, to_english = {}, {}
    said = [line.split(":") for line in _lines("translations.txt")]
    for word, others in said + [(country, abroad) for country, _, abroad, *_ in _countries()]:
        for language, words in zip(LANGUAGES, others.split(";"), strict=True):
            for other in words.split():
                of_english.setdefault(word, []).append((other, language))
                to_english.setdefault(other, []).append(word)
    for *_, capital, _, _ in _countries():  # the first name of a capital is the English one
        first, *others = capital.split()
        for other in others:
            of_english.setdefault(first, []).extend((other, language) for language in LANGUAGES)
            to_english.setdefault(other, []).append(first)
    return of_english, to_english


@cache
def _countries():
    """[(country, of the country, its name in `LANGUAGES`, its capital, further cities, continent)]"""
    parts = [[part.strip() for part in line.split("|")] for line in _lines("countries.txt")]
    return [(*names.split(", "), *others) for names, *others in parts]


def _lines(name):
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
