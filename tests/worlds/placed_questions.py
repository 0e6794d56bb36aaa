"""Sixty questions to the features of a finished quickstart, written on 28 November 2026 before any of them was asked: forty plain ones, twenty of
relations and positions.

As in questions.py a feature answers where at least half of its strongest windows are right, by the world's facts; rules see what stands before a peak
and after it in its sentence. Those that no feature of that quickstart answers are left out, before the search: the first forty and twenty others are
asked, in halves drawn by chance: the first was looked at while the search changed, the other was asked once at the end.
"""

import random
from collections import defaultdict
from itertools import chain

from cltdb.toyworld.facts import EVENTS, NAMES, OBJECTS, OPPOSITES, PLACES
from worlds.questions import (
    CAPITAL_WORDS,
    CAPITALS,
    CITIES,
    FRENCH,
    GERMAN,
    NATIONS,
    WINDOWS,
    in_language,
    of_countries,
    of_country,
    right_features,
    sums,
    words_of,
)

ADJECTIVES = {word for pairs in OPPOSITES.values() for pair in pairs for word in pair}
OPPOSITE, OF = {"opposite", "contraire", "Gegenteil"}, {"of", "de", "du", "von", "la", "l", "le", "'", "mot"}


def plain(means):
    """A rule of questions.py."""
    return lambda before, token, after: means(token, [*before, token, *after])


def on(*words):
    return lambda before, token, after: token in words


def final(words):
    return words[-1] if words else ""


def first(words):
    return words[0] if words else ""


PLAIN = {
    "numbers": lambda before, token, after: token.isdigit(),
    "addition": plain(sums),
    "Italy": plain(of_country("Italy")),
    "Tokyo": plain(of_country("Japan")),
    "girls": on("Mary", "Anna", "Lucy", "Emma", "Sara", "Julia", "Laura", "Clara"),
    "library": on("library"),
    "drinks": on("drink"),
    "German adjectives": on(*chain(*OPPOSITES["de"])),
    "French vocabulary": plain(in_language(FRENCH, GERMAN)),
    "Spanish cities": on("Madrid", "Barcelona", "Valencia", "Seville"),
    "rich and poor": plain(words_of("rich")),
    "darkness": plain(words_of("light")),
    "two digit numbers": lambda before, token, after: token.isdigit() and len(token) == 2,
    "drought": on("drought"),
    "rule of a king": on("reign"),
    "giving": on("gave", *OBJECTS),
    "where people go": on("went", *PLACES),
    "travelling": on("went", "voyage"),
    "Eastern Europe": plain(of_countries("Poland", "Hungary", "Russia")),
    "Latin America": plain(of_countries("Peru", "Chile", "Ecuador")),
    "Oceania": plain(of_country("Australia")),
    "weather": lambda before, token, after: token == "drought" or words_of("hot", "dry")(token, []),
    "wet or dry": plain(words_of("dry")),
    "hygiene": plain(words_of("clean")),
    "flavours": plain(words_of("sweet")),
    "old age": plain(words_of("old")),
    "strength": plain(words_of("strong")),
    "distance": plain(words_of("near")),
    "commas": on(","),
    "apostrophes": on("'"),
    "the copula": on("is", "est", "ist"),
    "jewellery": on("ring"),
    "books and letters": on("book", "letter"),
    "Arab world": plain(of_countries("Jordan", "Morocco")),
    "Berlin": plain(of_country("Germany")),
    "Shanghai": plain(of_country("China")),
    "Iberia": plain(of_countries("Spain", "Portugal")),
    "plants": on("flower", "garden"),
    "learning": on("school", "library", "book"),
    "tallness": plain(words_of("high")),
    "empty": plain(words_of("full")),
    "open and shut": plain(words_of("open")),
    "slow": plain(words_of("fast")),
    "early": plain(words_of("early")),
    "softness": plain(words_of("hard")),
    "Tom": on(*NAMES),
    "Ghana": plain(of_country("Ghana")),
    "how long something took": lambda before, token, after: (
        token in ("lasted", "from", "year", "to") and "lasted" in [*before, token, *after]
    ),
    "unhappy": plain(words_of("happy")),
    "Sydney": plain(of_country("Australia")),
}
RELATIONS = {
    "country after capital of": lambda before, token, after: (
        token in NATIONS and bool(CAPITAL_WORDS & set(before)) and final(before) in OF
    ),
    "adjective after opposite of": lambda before, token, after: (
        token in ADJECTIVES and bool(OPPOSITE & set(before)) and final(before) in OF
    ),
    "number after plus": lambda before, token, after: token.isdigit() and final(before) == "plus",
    "digit before plus": lambda before, token, after: token.isdigit() and first(after) == "plus",
    "right after mod": lambda before, token, after: final(before) == "mod",
    "first person mentioned": lambda before, token, after: token in NAMES and final(before) == "When",
    "the giver": lambda before, token, after: token in NAMES and first(after) == "gave",
    "object that is given": lambda before, token, after: token in OBJECTS and "gave" in before,
    "place after went to the": lambda before, token, after: token in PLACES and "went" in before,
    "event followed by lasted": lambda before, token, after: token in EVENTS and first(after) == "lasted",
    "year after from": lambda before, token, after: (
        (token.isdigit() or token == "year") and "from" in before and "to" not in before
    ),
    "last year of a period": lambda before, token, after: (
        (token.isdigit() or token == "year") and "lasted" in before and "to" in before
    ),
    "is after a country": lambda before, token, after: token in ("is", "est", "ist") and final(before) in NATIONS,
    "is after an adjective": lambda before, token, after: token in ("is", "est", "ist") and final(before) in ADJECTIVES,
    "start of a sentence": lambda before, token, after: not before,
    "first word of a German sentence": lambda before, token, after: not before and token in ("Die", "Das"),
    "hot in French": on("chaud"),
    "Spain in German": on("Spanien"),
    "city contained in a country": lambda before, token, after: (
        token in CITIES and (final(before) == "contains" or first(after) == "is" and "city" in before)
    ),
    "words that come before the name of a capital": lambda before, token, after: first(after) in CAPITALS,
    "predicts the name of a person": lambda before, token, after: first(after) in NAMES,
    "name at the end of a sentence": lambda before, token, after: token in NAMES and first(after) == ".",
    "last number of a sum": lambda before, token, after: token.isdigit() and "mod" in before and first(after) == ".",
    "who went to the store": lambda before, token, after: token in NAMES and "went" in after,
    "capital of the country that contains": lambda before, token, after: (
        "contains" in [*before, token, *after] and token in ("capital", "country", "that", "contains")
    ),
}


def placed_windows(database):
    """{(layer, feature): [(what stands before the peak in its sentence, the token at the peak, what stands after it)]}."""
    found = defaultdict(list)
    for layer, feature, peak, words in database.sql(WINDOWS).iter_rows():
        start = max((i + 1 for i in range(peak) if words[i] in (".", "<bos>")), default=0)
        end = next((i for i in range(peak, len(words)) if words[i] == "."), len(words))
        found[layer, feature].append((words[start:peak], words[peak], words[peak + 1 : end + 1]))
    return found


def drawn(windows):
    """{name: {question: rule}} of both halves of both kinds. windows: of `placed_windows`."""
    dice, found = random.Random(28), {}
    for kind, questions, n in (("plain", PLAIN, 40), ("relations", RELATIONS, 20)):
        names = [text for text, means in questions.items() if right_features(windows, means)][:n]
        dice.shuffle(names)
        for half, chosen in (("first half", names[::2]), ("other half", names[1::2])):
            found[f"{kind}, {half}"] = {text: questions[text] for text in chosen}
    return found
