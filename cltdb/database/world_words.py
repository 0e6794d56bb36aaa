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
    for line in _lines("countries.txt"):
        names, _, capital, others, continent = (part.strip() for part in line.split("|"))
        country, people = names.split(", ")
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
    into_others, into_english = {}, {}
    lines = _lines("translations.txt")
    lines += [f"{names.split(',')[0]}: {others}" for names, others, *_ in (line.split("|") for line in _lines("countries.txt"))]
    for line in lines:
        word, others = line.split(":")
        for language, said in zip(LANGUAGES, others.split(";"), strict=True):
            for other in said.split():
                into_others.setdefault(word, []).append((other, language))
                into_english.setdefault(other, []).append(word)
    for line in _lines("countries.txt"):  # the first name of a capital is the English one
        first, *others = line.split("|")[2].split()
        for other in others:
            into_others.setdefault(first, []).extend((other, language) for language in LANGUAGES)
            into_english.setdefault(other, []).append(first)
    return into_others, into_english


def _lines(name):
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
