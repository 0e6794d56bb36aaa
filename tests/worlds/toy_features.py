"""A dictionary as one would wish it for the toy world: features that stand for words, categories, countries, languages and kinds of sentences,
beside some that mix words without sense. Their windows are found in the world's text, their explanations name the first tokens, as rules do."""

import random
import re
from collections import Counter, defaultdict
from itertools import islice

from cltdb.toyworld.facts import COUNTRIES, EVENTS, LANGUAGES, NAMES, OBJECTS, OPPOSITES, PLACES
from cltdb.toyworld.text import documents, words
from worlds import tables as of

DICT, MODEL = "toyworld-clt-00112233", "toyworld"
WINDOW, N_WINDOWS, N_LAYERS = 12, 12, 4
VOCABULARY = ["<bos>", *words()]


def meanings():
    """What features stand for: functions of (token, its sentence, label)."""

    def tokens(*own):
        return lambda token, sentence, label, own=frozenset(own): token in own

    def sentences(*own):
        return lambda token, sentence, label, own=frozenset(own): token == "." and own <= set(sentence)

    yield from map(
        tokens, ["capital", "capitale", "Hauptstadt", "city", "ville", "Stadt", "country", "contains", "opposite", "contraire"]
    )
    yield from map(
        tokens, ["Gegenteil", "year", "lasted", "gave", "went", "plus", "mod", "The", "of", "is", ".", "est", "ist", "du", "von"]
    )
    for language in LANGUAGES:
        yield tokens(*(country.name[language] for country in COUNTRIES))
        yield tokens(*(country.capital[language] for country in COUNTRIES))
        yield tokens(*sum(OPPOSITES[language], []))
        yield from (tokens(*pair) for pair in OPPOSITES[language][::2])
        yield lambda token, sentence, label, language=language: token == "." and label == language
    for country in COUNTRIES:
        yield tokens(*country.name.values())
        yield tokens(*country.cities)
        yield tokens(*country.capital.values())
    yield tokens(*(city for country in COUNTRIES for city in country.cities))
    for own in (NAMES, PLACES, OBJECTS, EVENTS, [f"{n:02d}" for n in range(2, 100)]):
        yield tokens(*own)
    yield from (sentences(*own) for own in (["plus"], ["gave"], ["lasted"], ["opposite"], ["capital", "contains"]))
    dice = random.Random(0)
    yield from (tokens(*dice.sample(VOCABULARY, 4)) for _ in range(40))


def text(n_documents=500):
    """[(tokens, label)] of documents of the world."""
    return [(["<bos>", *re.findall(r"\w+|[^\w\s]", said)], label) for said, label in islice(documents(1), n_documents)]


def places(sequences):
    """{token: [(sequence, position, sentence, label)]}."""
    found = defaultdict(list)
    for number, (said, label) in enumerate(sequences):
        first = 1
        for position, token in enumerate(said):
            last = said.index(".", position) if "." in said[position:] else len(said) - 1
            found[token].append((number, position, said[first : last + 1], label))
            if token == ".":
                first = position + 1
    return found


def build(root):
    """The database of this dictionary, in folder `root`."""
    ids, sequences = {word: token for token, word in enumerate(VOCABULARY)}, text()
    everywhere, tables = places(sequences), defaultdict(list)
    tables["harvested_text"] = [
        {"dict_id": DICT, "sequence": number, "tokens": [ids[token] for token in said]}
        for number, (said, _) in enumerate(sequences)
    ]
    for number, means in enumerate(meanings()):
        key = {"dict_id": DICT, "layer": number % N_LAYERS, "feature": number // N_LAYERS}
        hits = [
            (token, *place) for token, where in everywhere.items() for place in where[:60] if means(token, place[2], place[3])
        ]
        random.Random(number).shuffle(hits)
        add_feature(tables, key, hits, sequences, ids)
    tables["dictionaries"] = [
        {"dict_id": DICT, "model_id": MODEL, "n_layers": N_LAYERS, "n_features": len(VOCABULARY), "d_model": 8}
    ]
    path = root / "toyworld.duckdb"
    of.load(path, root, "model-key", of.model(MODEL, VOCABULARY, n_layers=N_LAYERS))
    of.load(path, root, "all-key", dict(tables))
    return path


def add_feature(tables, key, hits, sequences, ids):
    peaks, after = Counter(token for token, *_ in hits), Counter()
    for rank, (token, sequence, position, _, label) in enumerate(hits[:N_WINDOWS]):
        said = sequences[sequence][0]
        start = max(0, position - WINDOW // 2)
        after[ids[said[min(position + 1, len(said) - 1)]]] += 1
        tables["windows"].append(
            {
                **key, "band": "top", "rank": rank, "document": sequence, "sequence": sequence, "start": start, "position": position,
                "length": len(said[start : start + WINDOW]), "label": label, "offsets": [position - start], "activations": [5.0],
                "max_activation": 5.0, "peak_token": ids[token],
            }
        )  # fmt: skip
    tables["features"].append(
        {
            **key, "density": len(hits) / 1e5, "max_activation": 5.0 if hits else 0.0, "dead": not hits,
            "top_logits": [{"token": token, "value": float(n)} for token, n in (after or Counter([ids["Paris"]])).most_common(5)],
        }
    )  # fmt: skip
    if hits:
        named = [f"'{token}'" for token, _ in sorted(peaks.items())]
        said = ", ".join(named[:5]) + (f" or {len(named) - 5} more" if len(named) > 5 else "")
        explanation = key | {"side": "input", "explainer": "rules"}
        tables["explanations"].append(explanation | {"text": f"fires on {said}", "status": "ok"})
        tables["scores"].append(explanation | {"scorer": "detection", "score": 0.6 + 0.01 * (key["feature"] % 40), "n": 40})
