"""Questions to the features of the toy world, and which features a person would name: twenty by its words, fifty by words for kinds of things.

Right answers come from the world's facts and from the windows of the harvest, not from any search: a feature answers a question where at
least half of its strongest windows peak on a token that the question means, in a sentence that it means. The first ten chose the settings of
the search, the other ten only judge them. Of the fifty, whose words the world's texts mostly lack, thirty were written before the glossary was and
twenty after it; none has changed it.
"""

from collections import defaultdict

from cltdb.toyworld.facts import COUNTRIES, EVENTS, NAMES, OBJECTS, OPPOSITES, PLACES

N_FIRST = 5
"""A question is answered where a right feature is among so many first ones."""
FEWEST_WINDOWS = 5
CAPITAL_WORDS, CITY_WORDS = {"capital", "capitale", "Hauptstadt"}, {"city", "ville", "Stadt"}
CAPITALS = {city for country in COUNTRIES for city in country.capital.values()}
CITIES = CAPITALS | {city for country in COUNTRIES for city in country.cities}
NATIONS = {name for country in COUNTRIES for name in country.name.values()}
FRENCH = {"La", "Le", "capitale", "est", "ville", "contraire", "du", "de", "la", "l", "mot", "une", *sum(OPPOSITES["fr"], [])}
GERMAN = {"Die", "Das", "Hauptstadt", "ist", "Stadt", "Gegenteil", "von", "liegt", *sum(OPPOSITES["de"], [])}


def one_of(*words):
    return lambda token, sentence: token in set(words)


def of_country(english):
    """Its names, its capital, its cities."""
    country = next(country for country in COUNTRIES if country.name["en"] == english)
    return one_of(*country.name.values(), *country.capital.values(), *country.cities)


def in_language(own, other):
    return lambda token, sentence: len(own & set(sentence)) > 1 and len(other & set(sentence)) < 2


def opposites(token, sentence):
    return token in {"opposite", "contraire", "Gegenteil", "hot", "cold"} or (
        token in sum(OPPOSITES["en"], []) and "opposite" in sentence
    )


def years(token, sentence):
    return token == "year" or (token.isdigit() and len(token) == 2 and bool({"year", "lasted", "from"} & set(sentence)))


CHOSEN_BY = {
    "capital": one_of(*CAPITAL_WORDS),
    "opposite of hot": opposites,
    "Mary": one_of(*NAMES),
    "Germany": of_country("Germany"),
    "Paris": of_country("France"),
    "deep water": one_of("deep", "shallow"),
    "Moscow": of_country("Russia"),
    "the city of Lyon": one_of("city", *next(country.cities for country in COUNTRIES if "Lyon" in country.cities)),
    "le contraire": one_of("contraire"),
    "capital cities": one_of(*CAPITAL_WORDS, *CAPITALS),
}
JUDGED_BY = {
    "years": years,
    "French": in_language(FRENCH, GERMAN),
    "cities": one_of(*CITY_WORDS, *CITIES),
    "countries": one_of("country", *NATIONS),
    "cold": one_of("hot", "cold"),
    "wars and strikes": one_of(*EVENTS, "lasted"),
    "schools and museums": one_of(*PLACES),
    "Ireland": of_country("Ireland"),
    "Hauptstadt": one_of("Hauptstadt"),
    "German words": in_language(GERMAN, FRENCH),
}


def words_of(*english):
    """The pairs of opposites with these words, in every language."""
    rows = [row for row, pair in enumerate(OPPOSITES["en"]) if set(pair) & set(english)]
    return one_of(*(word for pairs in OPPOSITES.values() for row in rows for word in pairs[row]))


def of_countries(*english):
    means = [of_country(one) for one in english]
    return lambda token, sentence: any(one(token, sentence) for one in means)


def sums(token, sentence):
    return bool({"plus", "mod"} & set(sentence)) and (token in {"plus", "mod"} or token.isdigit())


ARTICLES = ("The", "the", "a", "La", "la", "Le", "le", "l", "une", "Die", "die", "Das")
KINDS = {
    "contrasts": opposites,
    "adjectives": one_of(*(word for pairs in OPPOSITES.values() for pair in pairs for word in pair)),
    "temperature": words_of("hot"),
    "size": words_of("big", "wide", "long", "high"),
    "emotions": words_of("happy"),
    "wealth": words_of("rich"),
    "speed": words_of("fast"),
    "math": sums,
    "remainder": one_of("mod"),
    "adding numbers": sums,
    "people": one_of(*NAMES),
    "female names": one_of("Mary", "Anna", "Lucy", "Emma", "Sara", "Julia", "Laura", "Clara"),
    "gifts": one_of("gave", *OBJECTS),
    "buildings": one_of(*PLACES),
    "towns": one_of(*CITY_WORDS, *CITIES),
    "nations": one_of("country", *NATIONS),
    "Asia": of_countries("Japan", "China", "Vietnam", "Thailand", "Jordan"),
    "African countries": of_countries("Morocco", "Kenya", "Ghana", "Senegal"),
    "geography": one_of("country", "contains", *CAPITAL_WORDS, *CITY_WORDS, *CITIES, *NATIONS),
    "past tense": one_of("went", "gave", "lasted"),
    "verbs": one_of("is", "went", "gave", "lasted", "contains", "est", "ist", "liegt"),
    "prepositions": one_of("of", "in", "to", "from", "de", "du", "von"),
    "articles": one_of(*ARTICLES),
    "conjunctions": one_of("and", "When", "that"),
    "dates": years,
    "duration": lambda token, sentence: token in {"lasted", "from", "year", "to"} and "lasted" in sentence,
    "conflicts": one_of("war", "strike"),
    "full stop": one_of("."),
    "foreign languages": lambda token, sentence: len((FRENCH | GERMAN) & set(sentence)) > 1,
    "royalty": one_of("reign"),
}
LATER_KINDS = {
    "modulus": one_of("mod"),
    "calculation": sums,
    "antonym pairs": opposites,
    "men's names": one_of("John", "Peter", "Tom", "Paul", "David", "Mark", "Simon", "Henry"),
    "centuries": years,
    "warfare": one_of("war", "strike"),
    "handing over an object": one_of("gave", *OBJECTS),
    "public places": one_of(*PLACES),
    "shops": one_of("store", "market"),
    "big cities": one_of(*CITY_WORDS, *CITIES),
    "Scandinavia": of_countries("Sweden", "Norway", "Denmark", "Finland"),
    "South American countries": of_countries("Peru", "Chile", "Ecuador"),
    "determiners": one_of(*ARTICLES),
    "linking verb": one_of("is", "est", "ist"),
    "punctuation marks": one_of(".", "'"),
    "numerals": lambda token, sentence: token.isdigit(),
    "trips": one_of("voyage", "went"),
    "containment": one_of("contains", "in"),
    "dimensions": words_of("big", "wide", "long", "high"),
    "characters in a story": one_of(*NAMES),
}
WINDOWS = """
SELECT c.layer, c.feature, c.position - c.start AS peak, list(v.string ORDER BY c.place) AS words
FROM (SELECT dict_id, layer, feature, rank, position, start, unnest(tokens) AS token, generate_subscripts(tokens, 1) AS place
      FROM contexts WHERE band = 'top') AS c
JOIN dictionaries AS d USING (dict_id) JOIN vocabulary AS v ON v.model_id = d.model_id AND v.token = c.token
GROUP BY c.layer, c.feature, c.rank, peak ORDER BY ALL
"""


def strongest_windows(database):
    """{(layer, feature): [(token at the peak, its sentence)]}."""
    found = defaultdict(list)
    for layer, feature, peak, words in database.sql(WINDOWS).iter_rows():
        first = max((i + 1 for i in range(peak) if words[i] in (".", "<bos>")), default=0)
        last = next((i for i in range(peak, len(words)) if words[i] == "."), len(words))
        found[layer, feature].append((words[peak], words[first : last + 1]))
    return found


def right_features(windows, means):
    """The features that a question means."""
    return {
        feature
        for feature, seen in windows.items()
        if len(seen) >= FEWEST_WINDOWS and sum(bool(means(*one)) for one in seen) * 2 >= len(seen)
    }


def answered(search, windows, questions):
    """{question: which of the first features are right}. search: a function of a text that gives (layer, feature)s, the best first."""
    return {
        text: [feature in right_features(windows, means) for feature in list(search(text))[:N_FIRST]]
        for text, means in questions.items()
    }
