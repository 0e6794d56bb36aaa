"""Search by meaning: twenty questions, the ranking against a slow twin, odd texts, words that follow what is loaded."""

import json
import math
import re
import shutil
from collections import defaultdict
from pathlib import Path

import duckdb
import numpy as np
import pytest
from command_line import cltdb
from worlds import questions, toy_features
from worlds import tiny_experiment as tiny_world
from worlds.tables import load

from cltdb.database import derived
from cltdb.database import words as words_module
from cltdb.database.api import Database
from cltdb.database.export import export
from cltdb.database.glossary import PASSED_OVER, in_order, meant
from cltdb.database.load import lacks, load_artifact, unload_artifact
from cltdb.database.named_queries import named_query
from cltdb.database.search import may_have_unknown_words, without_neighbours
from cltdb.database.stems import STEM, stem
from cltdb.database.store import SCHEMA, connect
from cltdb.database.tables import all_tables
from cltdb.database.word_pages import PAGES
from cltdb.database.words import changed_words, refresh_words


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The database of the planted features of the toy world."""
    return Database(toy_features.build(tmp_path_factory.mktemp("toy")))


def found(db, text, **options):
    return db.search(text, **options).select("layer", "feature").rows()


def test_twenty_questions(toy):
    """Among the first five is one that a person would name; chance finds it for 2 or 3."""
    windows = questions.strongest_windows(toy)
    asked = questions.CHOSEN_BY | questions.JUDGED_BY
    answers = questions.answered(lambda text: found(toy, text), windows, asked)
    missed = [text for text, right in answers.items() if not any(right)]
    assert len(asked) == 20 and len(missed) <= 2, missed
    by_chance = questions.answered(lambda text: list(windows)[:5], windows, asked)
    assert sum(map(any, by_chance.values())) < 10


def test_words_for_kinds_of_things(toy):
    """Where a feature that a person would name is there at all, it is among the first five but once; without the glossary such words find
    little."""
    windows, asked = questions.strongest_windows(toy), dict(list(questions.LATER_KINDS.items())[::2])
    with toy.session() as session:
        answers = questions.answered(lambda text: found(session, text), windows, asked)
        assert session.query("feature_search", text="antonyms", glossary=[]).is_empty()
    answerable = {text for text, means in asked.items() if questions.right_features(windows, means)}
    missed = {text for text in answerable if not any(answers[text])}
    assert len(answerable) >= 9 and len(missed) <= 1, missed


def test_neighbours_in_meaning_are_of_the_same_kind(toy):
    near = toy.sql(
        "SELECT o.word AS asked, list(w.word ORDER BY array_inner_product(o.vector, w.vector) DESC)[2:6] AS near FROM words AS o, words AS w"
        " WHERE o.word IN ('hot', 'france', 'year') AND o.vector IS NOT NULL AND w.vector IS NOT NULL GROUP BY ALL"
    )
    near = dict(near.iter_rows())
    assert near["hot"][0] == "cold" and {"paris", "frankreich"} & set(near["france"])
    assert set(near["year"]) <= {"lasted", "from", *toy_features.EVENTS, *(f"{n:02d}" for n in range(100))}


LIKENESS = {
    "itself": 1.0,
    "stem": 0.9,
    "begins": 0.7,
    "holds": 0.4,
    "near": 0.6,
    "glossary": 0.5,
    "glossary of a word in texts": 0.2,
    "glossary of several words": 0.85,
    "translation": 0.6,
}


def part(asked):
    """What a word that begins with the asked one, or holds it, has."""
    return asked if re.search("(e|^.{1,3}sis)$", asked) else stem(asked)


def literal(asked, known):
    """{word: likeness} of the words of the database that are like the asked one by their letters."""
    likeness = {}
    for word in known:
        if word == asked:
            likeness[word] = LIKENESS["itself"]
        elif stem(word) == stem(asked):
            likeness[word] = LIKENESS["stem"]
        elif part(asked) in word and len(part(asked)) > 2:
            begins = word.startswith(part(asked))
            likeness[word] = LIKENESS["begins" if begins else "holds"] * len(part(asked)) / len(word)
    best = sorted(likeness, key=lambda word: (-likeness[word], word))[:30]
    return {word: likeness[word] for word in best if likeness[word] >= 0.5 * likeness[best[0]]}


def instances_of(asked, text, known):
    """{word of the database: mark of the pair} of the instances of what an asked word names, by the glossary, and of its translations."""
    said = {}
    for pair in meant(text) or ():
        word, instance, mark, language = [*pair.split(" "), "", ""][:4]
        if word == asked and (not language or known.get(language, {}).get("labels")):
            said[instance] = mark
    found = {}
    for word, row in known.items():
        marks = {said[form] for form in (word, stem(word)) if form in said}
        if marks and row["share"] < 0.9 and row["reaches"]:
            found[word] = next((mark for mark in "+=~" if mark in marks), "")
    return found


def weight_of(forms, instances, known):
    if not forms and not instances:
        return 9
    if instances and max(forms.values(), default=0) < 0.9:
        return max(1.4, -math.log(min(1, sum(known[word]["share"] for word in instances))))
    of_word = max(0.05, -math.log(known[max(forms, key=forms.get)]["share"]))
    return of_word if any(known[word]["reaches"] for word in forms) else min(3, of_word)


def passed_over(weights, forms, instances):
    """Words that common words of a text are."""
    known = [weight for word, weight in weights.items() if forms[word] or instances[word]]
    rarest = max(known, default=0)
    least = max(0.3 * rarest, 1.4 if rarest >= 1.4 else 0)
    return {word for word, weight in weights.items() if not instances[word] and weight < least}


def near_to(asked, forms, weight, known, n_asked):
    """{word: likeness} of the neighbours in meaning of an asked word, of which `forms` are known."""
    if not forms:
        return {}
    origin = max((word for word in forms if known[word]["vector"]), key=lambda word: forms[word], default=None)
    if origin is None or max(forms.values()) < 0.9:
        return {}
    found = {}
    for word, row in known.items():
        cosine = sum(a * b for a, b in zip(known[origin]["vector"], row["vector"], strict=True)) if row["vector"] else 0
        if cosine >= 0.4 and row["reaches"]:
            found[word] = cosine**2 * min(1, -math.log(row["share"]) / weight)
    best = sorted(found, key=lambda word: (-found[word], word))
    mean = sum(found[word] for word in best[:48]) / 48
    best = [word for word in best[: max(8, min(48, 96 // n_asked))] if found[word] > mean]
    return {word: LIKENESS["near"] * max(forms.values()) * (found[word] - mean) / (1 - mean) for word in best}


def slow_search(db, text):
    """[(relevance, (layer, feature))] of all features that a text finds, as the notes of query feature_search tell it."""
    stands = defaultdict(list)
    for word, where in (said.split(" ") for said in in_order(text) or ()):
        stands[word].append(where)
    known = {row["word"]: row for row in db.sql("FROM words").iter_rows(named=True)}
    statistics = db.sql("FROM word_statistics").row(0, named=True)
    asked = list(dict.fromkeys(re.findall(r"\w+", text.lower())))
    asked = [word for word in asked if stands[word] != ["-"]]
    asked = [word for word in asked if stands[word] or word not in PASSED_OVER] or asked
    instances = {word: instances_of(word, text, known) for word in asked}
    phrase = {pair.split(" ")[0] for pair in meant(text) or () if "+" in pair.split(" ")[2:]}
    forms = {word: {one: by * (0.5 if word in phrase else 1) for one, by in literal(word, known).items()} for word in asked}
    weights = {word: weight_of(forms[word], instances[word], known) for word in asked}
    for word in passed_over(weights, forms, instances):
        if not stands[word]:
            del weights[word]
    weights = {(word, where): weight for word, weight in weights.items() for where in stands[word] or [None]}
    of_place = {place: sum(weight for (_, where), weight in weights.items() if where == place) for _, place in weights}
    weights = {word: weight / of_place[word[1]] for word, weight in weights.items()}  # each place weighs alike
    strength, after = (defaultdict(lambda: defaultdict(float)) for _ in range(2))
    for word, where in weights:
        near = near_to(
            word, forms[word], weight_of(forms[word], instances[word], known), known, sum(len(stands[one]) or 1 for one in asked)
        )
        has_vector = any(known[one]["vector"] for one, likeness in forms[word].items() if likeness >= 0.9)
        alone = LIKENESS["glossary of a word in texts" if has_vector else "glossary"]
        rarest = max((-math.log(known[one]["share"]) for one in instances[word]), default=0)
        sure = LIKENESS["glossary of several words"]
        of_mark = {"+": sure, "=": sure, "~": LIKENESS["translation"], "": alone}
        by_glossary = {
            one: of_mark[mark] * max(0.5, min(1, -2 * math.log(known[one]["share"]) / rarest))
            for one, mark in instances[word].items()
        }
        like = {
            one: max(some.get(one, 0) for some in (near, forms[word], by_glossary)) for one in {*near, *forms[word], *by_glossary}
        }
        add_explanations(db, like, statistics, strength, (word, where))
        add_tokens(db, like, known, statistics, strength, after, (word, where))
        whole = 0.5 if word in phrase else 1
        add_labels(
            db,
            {one: min(1, like[one] / whole) for one in forms[word] if like[one] >= 0.9 * whole},
            known,
            strength,
            (word, where),
        )
    cards = {(row["layer"], row["feature"]): row for row in db.sql("FROM feature_cards").iter_rows(named=True)}
    ranked, total = [], sum(weights.values())
    for feature in strength.keys() | after.keys():
        found_by = {word for some in (strength, after) for word, s in some[feature].items() if s}
        full = lambda word: word[1] or len(found_by) > 1  # noqa: B023, E731
        by_word = {
            word: max(0, strength[feature][word] + (1 if full(word) else 0.32) * after[feature][word]) for word in found_by
        }
        mean = sum(weights[word] * s for word, s in by_word.items()) / total
        covered = sum(weights[word] * min(1, s) for word, s in by_word.items()) / total
        ranked.append(
            (
                mean
                * (covered if any(place for _, place in weights) else math.sqrt(covered))
                * (0.8 + 0.2 * (cards[feature]["score"] or 0)),
                feature,
            )
        )
    return sorted(ranked, key=lambda one: (cards[one[1]]["dead"], -round(one[0], 6), one[1]))


def add_explanations(db, like, statistics, strength, word):
    said = defaultdict(list)
    for row in db.sql("FROM explanation_words").iter_rows(named=True):
        if row["word"] in like:
            said[row["layer"], row["feature"]].append((row["n"], like[row["word"]], row["length"]))
    for feature, hits in said.items():
        best = max(likeness for _, likeness, _ in hits)
        n = sum(n * likeness for n, likeness, _ in hits) / best
        strength[feature][word] += (
            (0.2 if word[1] in ("before", "next") else 0.8)
            * best
            * n
            / (n + 1.2 * (0.25 + 0.75 * hits[0][2] / statistics["mean_length"]))
        )


def add_tokens(db, like, known, statistics, strength, after, word):
    of_token = defaultdict(float)
    for one, likeness in like.items():
        for token in known[one]["tokens"] or []:
            of_token[token] = max(of_token[token], likeness)
    promoted, followed, all_promoted = (defaultdict(float) for _ in range(3))
    of_role = {None: (1.5, 1.25, 0.4), "here": (1.5, 0, 0), "before": (-0.75, 0.75, 0), "next": (-0.75, 0, 0.75)}[word[1]]
    beside = {"before": "right_after", "next": "right_before"}.get(word[1])
    for row in db.sql("FROM token_features").iter_rows(named=True):
        feature, likeness = (row["layer"], row["feature"]), of_token.get(row["token"], 0)
        if row["role"] == "fires_on":
            strength[feature][word] += of_role[0] * row["weight"] * likeness
        elif likeness >= 0.5 and row["role"] == beside:
            strength[feature][word] += row["weight"] * likeness
        elif likeness >= 0.5 and row["role"] in ("follows", "promotes"):
            best = promoted if row["role"] == "promotes" else followed
            best[feature] = max(best[feature], row["weight"] * likeness)
            all_promoted[feature] += row["weight"] * likeness if row["role"] == "promotes" else 0
    for feature, best in followed.items():
        after[feature][word] += of_role[1] * best
    for feature, best in promoted.items():
        best, beside = (all_promoted[feature], 2) if word[1] == "next" else (best, 1)
        strength[feature][word] += of_role[2] * best / (best + beside * statistics["mean_effect"])


def add_labels(db, like, known, strength, word):
    labels = {label: likeness for one, likeness in like.items() for label in known[one]["labels"] or []}
    for row in db.sql("FROM window_labels").iter_rows(named=True):
        share = row["n_windows"] / row["n_labelled"]
        more = (share - row["of_layer"]) / (1 - row["of_layer"]) if row["of_layer"] < 1 else 0
        if row["label"] in labels and more > 0.25:
            strength[row["layer"], row["feature"]][word] += labels[row["label"]] * more


@pytest.mark.parametrize(
    "text",
    [
        "capital",
        "years",
        "opposite of hot",
        "French",
        "numbers",
        "capit",
        "the city of Lyon zzz",
        "gifts",
        "foreign languages",
        "past tense",
        "the end of a sentence",
        "country names in French",
        "opposite of light",
        "after the word capital",
        "article before a country",
        "year after a year",
        "right after mod",
        "the end of a sentence before a city",
        "number between plus and mod",
    ],
)
def test_relevance_is_that_of_the_slow_twin(toy, text):
    expected = [(relevance, feature) for relevance, feature in slow_search(toy, text) if relevance > 0][:50]
    frame = toy.search(text)
    assert frame["relevance"].to_list() == pytest.approx([relevance for relevance, _ in expected], abs=1e-5)
    assert frame.height >= 3 and frame.select("layer", "feature").rows()[:3] == [feature for _, feature in expected[:3]]


NEW_PAGES = f"DELETE FROM word_pages; INSERT INTO word_pages {PAGES.format(words='words')}"
IN_STEPS = (
    "capital",
    "opposite of hot",
    "capital cities, or.",
    "country names in French",
    "early in German",
    "numbers zzzz",
    "article before a country",
    "a person's name",
    "of which",
    "e",
    "comma",
    "(été)",
    "\t\x0b",
    "year after a year",
    "comma between a name and the word",
    "words right before a , or .",
)


def test_a_search_in_steps_finds_what_its_query_finds(toy, tmp_path):
    """All columns, in two dictionaries, one of them, a layer, without dead features, with scores, from exported files."""
    path = Path(shutil.copy(toy.path, tmp_path))
    another = toy.sql("SELECT DISTINCT dict_id FROM features").item() + "-2"
    with connect(path, write=True) as connection:
        for table in (
            "words",
            "word_statistics",
            "explanation_words",
            "token_features",
            "features",
            "best_explanations",
            "dictionaries",
        ):
            connection.execute(f"INSERT INTO {table} SELECT * REPLACE ('{another}' AS dict_id) FROM {table}")
        connection.execute(
            "UPDATE explanation_words SET place = md5_number_lower(dict_id || ' ' || word) WHERE dict_id = $d;"
            " UPDATE token_features SET place = md5_number_lower(dict_id) // 268435456 * 268435456 + place % 268435456 WHERE dict_id = $d;"
            " UPDATE words SET place = md5_number_lower(dict_id) // 16777216 * 16777216 + place % 16777216 WHERE dict_id = $d".replace(
                "$d", f"'{another}'"
            )
        )
        connection.execute("DELETE FROM words WHERE dict_id = ? AND word < 'd'", [another])
        connection.execute(NEW_PAGES)
    export(path, tmp_path / "exported")
    options = ({}, {"dict_id": another}, {"layer": 1}, {"alive": True, "limit": 7}, {"limit": 2000})
    n_found = 0
    with Database(path).session() as session, Database(tmp_path / "exported").session() as exported:
        for n, text in enumerate(IN_STEPS):
            chosen, db = options[n % len(options)], exported if n % 4 == 3 else session
            found = db.search(text, **chosen)
            assert found.equals(db.query("feature_search", text=text, **chosen)), (text, chosen)
            n_found += found.height
    assert n_found > 200


def test_reasons(toy):
    first = {text: toy.search(text)["found_in"][0] for text in ("capital", "French", "numbers")}
    assert first["capital"].startswith("fires on 'capital' (100 % of its strongest windows); explanation 'capital'")
    assert "text labelled 'fr'" in first["French"] and "fires on" in first["numbers"]
    near = toy.search("Lisbon", limit=50)["found_in"].to_list()
    assert any("(near 'lisbon'" in why for why in near)
    promoted = next(row for row in toy.search("comma").iter_rows(named=True) if row["found_in"].startswith("promotes"))
    card = toy.query("feature_card", **{name: promoted[name] for name in ("dict_id", "layer", "feature")}).row(0, named=True)
    rank, effect = next((rank, one) for rank, one in enumerate(card["promoted"], start=1) if one["string"] == ",")
    assert promoted["found_in"] == f"promotes ',' ({effect['value']:+.2g}, rank {rank})"


def test_what_stands_before_peaks_counts_beside_another_word(toy, tmp_path):
    """Of features that fire on `light`, the one that does so after `opposite` comes first, before all that fire on `opposite`; one word alone is found
    by what fires on it."""
    first, *others = toy.search("opposite of light")["found_in"]
    assert first.startswith("fires on 'light' (58 % of its strongest windows); after 'opposite' (100 % of its strongest windows)")
    assert any(why.startswith("fires on 'opposite' (100 %") for why in others)
    assert "after" not in toy.search("opposite")["found_in"][0]
    path = Path(shutil.copy(toy.path, tmp_path))
    with connect(path, write=True) as connection:
        connection.execute("DELETE FROM token_features WHERE role NOT IN ('fires_on', 'promotes')")
    assert Database(path).search("opposite of light")["relevance"][0] < toy.search("opposite of light")["relevance"][0]


def test_ranks_of_promoted_tokens_come_with_the_next_load(toy, tmp_path):
    path = Path(shutil.copy(toy.path, tmp_path))
    with duckdb.connect(path) as connection:
        connection.execute("ALTER TABLE token_features DROP COLUMN rank; DELETE FROM schema_migrations WHERE name[:4] = '0052'")
    with connect(path, write=True) as connection:
        assert derived.is_stale(connection)
    without = Database(path).search("comma")["found_in"].to_list()
    expected = toy.search("comma")["found_in"].to_list()
    assert without == [re.sub(", rank [0-9]+", "", why) for why in expected] != expected
    with connect(path, write=True) as connection:
        derived.refresh(connection)
    assert Database(path).search("comma").equals(toy.search("comma"))


ROLES = ("fires_on", "follows", "promotes", "right_after", "right_before")


def test_the_rows_of_tokens_have_their_numbers_before_the_next_load_and_lie_by_role_after_it(toy, tmp_path):
    path, db, rows = Path(shutil.copy(toy.path, tmp_path)), Database(tmp_path / toy.path.name), "FROM token_features"
    with duckdb.connect(path) as connection:
        connection.execute(
            "CREATE OR REPLACE TABLE token_features AS SELECT * EXCLUDE (place) FROM token_features"
            " WHERE role IN ('fires_on', 'promotes') ORDER BY layer, token, feature"
        )
        connection.execute("DELETE FROM schema_migrations WHERE name[:4] = '0059'")
    with connect(path, write=True) as connection:
        assert derived.is_stale(connection)
    assert db.sql(f"{rows} ORDER BY ALL").equals(toy.sql(f"{rows} WHERE role IN ('fires_on', 'promotes') ORDER BY ALL"))
    without = Database(Path(shutil.copy(toy.path, tmp_path / "without.duckdb")))
    with connect(without.path, write=True) as connection:
        connection.execute("DELETE FROM token_features WHERE role NOT IN ('fires_on', 'promotes')")
    for text in ("comma", "opposite of hot"):
        assert db.search(text).equals(without.search(text))
    with connect(path, write=True) as connection:
        derived.refresh(connection)
    assert db.sql(rows).equals(toy.sql(rows))
    of_layer = toy.sql(f"{rows} WHERE layer = 0")
    assert of_layer["place"].is_sorted() and set(of_layer["role"]) == {*ROLES}


def test_an_explanation_or_firing_wins_over_promoting(toy):
    """The feature that fires on Paris comes before those that only promote it, and dead ones come last."""
    frame = toy.search("paris", limit=500)
    only_promote = [why.startswith("promotes") and ";" not in why for why in frame["found_in"]]
    assert not any(only_promote[:2]) and frame["dead"].is_sorted() and any(frame["dead"])
    assert not any(toy.query("feature_search", text="paris", alive=True)["dead"])


def test_case_accents_order_filters_and_odd_texts(toy):
    assert found(toy, "ÉQUATEUR") == found(toy, "equateur") != []
    assert set(found(toy, "hot opposite")) == set(found(toy, "opposite hot"))
    layer = toy.search("capital", layer=1)
    assert set(layer["layer"]) == {1} and found(toy, "capital", layer=0) != found(toy, "capital")
    assert toy.query("feature_search", text="capital", min_score=0.7)["score"].min() >= 0.7
    assert found(toy, "") == found(toy, "  \n") == found(toy, "zzzz qqqq") == found(toy, "%") == found(toy, "_") == []
    assert found(toy, "capital' OR 'a'='a; DROP TABLE words") and found(toy, "capital " * 5000) == found(toy, "capital")
    assert found(toy, "日本語 🙂 ' \" \\") == found(toy, "'") and "'," in toy.search("comma")["found_in"][0]
    assert found(toy, "capital zzzz")[:3] == found(toy, "capital")[:3] and found(toy, "zzzz of qqqq") == [] != found(toy, "of")
    unknown = dict(toy.query("unknown_words", text="captial zzzz Paris cities").iter_rows())
    assert unknown == {"captial": ["capital", "capitale"], "zzzz": []} or unknown["captial"][0] == "capital"


def test_a_word_by_which_features_are_found_is_known(toy):
    """By any word of the database, by beginnings of them, by the glossary, and by own labels: then unknown_words, which takes time, need not say so."""
    words = toy.sql("SELECT word FROM word_forms ORDER BY word")["word"].to_list()
    some, n_known = words[:: len(words) // 4], 0
    asked = [*some, *(word[: len(word) // 2 + 1] for word in some), "weekdays", "zzzz", "captial", "%"]
    with toy.session() as s:
        for text in asked:
            if not may_have_unknown_words(text, s.search(text, limit=5)["found_in"]):
                n_known += 1
                assert s.query("unknown_words", text=text).is_empty(), text
    assert 5 <= n_known < len(asked) - 2
    assert may_have_unknown_words("capital", []) and may_have_unknown_words("capital zzzz", ["explanation 'capital'"])
    assert may_have_unknown_words("zzzz", ["meaning of the explanation (cosine 0.90)"])
    assert not may_have_unknown_words(" capital", ["explanation 'capital'; meaning of the explanation (cosine 0.90)"])


def test_signs_of_a_sentence_are_not_looked_for_but_those_that_stand_alone_are(toy):
    for plain, written in (
        ("the capital of France", "the capital of France."),
        ("Paris Rome", "Paris, Rome!"),
        ("Paris Rome", "Paris,Rome;"),
        ("years", "years..."),
    ):
        assert found(toy, written) == found(toy, plain) != []
        assert toy.query("unknown_words", text=written).is_empty()
    assert found(toy, ".") and found(toy, ",") and found(toy, ".") == found(toy, " . ") != found(toy, "France .")


def test_a_text_that_is_a_token_is_found_as_this_token(toy, tmp_path):
    path = shutil.copy(toy.path, tmp_path)
    with connect(path, write=True) as connection:  # the token of a word with signs, such as those that begin a text
        for table in ("words", "word_forms"):
            connection.execute(
                f"UPDATE {table} SET word = '<paris>', word_hash = md5_number_lower('<paris>') WHERE word = 'paris'"
            )
        connection.execute(NEW_PAGES)
    db = Database(path)
    best = db.search(" <Paris> ", limit=3)
    assert best["found_in"][0].startswith("fires on 'Paris' (") and db.query("unknown_words", text="<paris>").is_empty()
    assert db.search("<capital>").equals(db.search("< capital >")), "no token: its words and signs"


def test_the_command_says_what_nobody_knows(toy, tmp_path):
    (tmp_path / "cltdb.yaml").write_text(f"database: {{path: {toy.path}}}\n")
    done = cltdb(tmp_path, "search", "captial cities", "--layer", "2", "--limit", "3")
    assert done.stdout.startswith("dict_id,layer,feature,relevance,found_in,text") and len(done.stdout.splitlines()) == 4
    assert "no word of the database is like 'captial'; spelled like it: capital" in done.stderr and done.returncode == 0
    options = [f"-p{name}={value}" for name, value in {"text": "captial cities", "layer": 2, "limit": 3}.items()]
    assert cltdb(tmp_path, "sql", "--query", "feature_search", *options).stdout == done.stdout, "which comes through Arrow"
    nothing = cltdb(tmp_path, "search", "apostrophe", "--layer", "3")
    assert nothing.returncode == 0 and nothing.stderr == "no feature of layer 3 has to do with 'apostrophe'\n"
    assert cltdb(tmp_path, "search", " ").returncode == 1
    for option, told in {
        "--layer=99": "found no layer 99; expected 0 to",
        "--dict=none": "expected one of ",
        "--limit=0": "expected 1 or more",
    }.items():
        nowhere = cltdb(tmp_path, "search", "capital", option)
        assert nowhere.returncode == 1 and told in nowhere.stderr and not nowhere.stdout and len(nowhere.stderr.splitlines()) == 1


PLURALS = """
    house houses horse horses case cases phrase phrases size sizes prize prizes axe axes cache caches bus buses gas gases class classes box boxes
    tax taxes church churches dish dishes city cities tie ties movie movies cookie cookies hero heroes potato potatoes shoe shoes canoe canoes
    building buildings meaning meanings string strings king kings thing things analysis analyses crisis crises parenthesis parentheses cat cats
    key keys virus viruses course courses
"""
APART = "news new these thesis string str bus bu paris pari king k thing th glass glas this thi marie mary julie july"


def test_both_queries_cut_a_text_into_words_and_hold_own_labels_against_them_alike():
    parts = re.compile(
        r"SELECT unnest\(parts\) AS word.*?AS known\)\)\)|if\(length\(\w\.part\) > 2.*?' ' \|\| \w\.word \|\| ' '\)\)", re.DOTALL
    )
    of_search, of_unknown = (
        [re.sub(r"\b[aq]\.", "", " ".join(part.split())) for part in parts.findall(named_query(name).sql)]
        for name in ("feature_search", "unknown_words")
    )
    assert len(of_search) == 2 and of_search == of_unknown


def test_stems_and_hashes_are_the_same_everywhere(toy, tmp_path):
    squeezed = " ".join(STEM.split())
    for name in ("feature_search", "unknown_words"):
        assert squeezed in " ".join(named_query(name).sql.split()), name
    assert squeezed in " ".join((SCHEMA / "0061_stems.sql").read_text().split())
    for word, of_word in toy.sql("SELECT word, stem FROM words").iter_rows():
        assert of_word == stem(word)
    assert toy.sql("SELECT count(*) FROM words WHERE word_hash <> md5_number_lower(word)").item() == 0
    words = [*PLURALS.split(), *APART.split(), "express", "singing", "été", "12s", "straßen", "s", "is"]
    with duckdb.connect() as connection:
        stems = connection.execute(f"SELECT {STEM} FROM (SELECT unnest($words) AS word)", {"words": words}).fetchall()
    assert [of_word for (of_word,) in stems] == [stem(word) for word in words]


def test_a_plural_meets_its_word_and_other_words_do_not():
    for words, meet in ((PLURALS.split(), True), (APART.split(), False)):
        pairs = zip(words[::2], words[1::2], strict=True)
        assert [pair for pair in pairs if (stem(pair[0]) == stem(pair[1])) != meet] == []


def test_a_word_that_loses_its_e_is_looked_for_whole_in_others(database, tmp_path):
    """No word begins with cas but castle, which is no case."""
    load(database, tmp_path, "later", tiny_world.explain_tables(text="fires on a castle"), started_at="2027-01-01T00:00:00+00:00")
    assert found(Database(database), "castles") and not found(Database(database), "case")
    assert Database(database).query("unknown_words", text="case")["word"].to_list() == ["case"]


def test_stems_of_an_earlier_cltdb_are_mended(database):
    forms = "SELECT word, stem FROM word_forms ORDER BY word"
    with connect(database, write=True) as connection:
        before = connection.sql(forms).fetchall()
        for table in ("words", "word_forms"):
            connection.execute(f"UPDATE {table} SET stem = 'x'")
        connection.execute((SCHEMA / "0061_stems.sql").read_text())
        assert connection.sql(forms).fetchall() == before and len(before) > 5
        assert (
            connection.sql("SELECT word FROM words JOIN word_forms AS f USING (word) WHERE words.stem <> f.stem").fetchall() == []
        )


def vectors(path):
    return Database(path).sql("SELECT word, share, tokens, labels, reaches, vector FROM words ORDER BY dict_id, word")


def test_words_that_reach_features_are_those_of_explanations_and_of_their_tokens(toy):
    said = set(toy.sql("SELECT DISTINCT word FROM explanation_words")["word"])
    words = toy.sql("SELECT word, tokens, reaches FROM words").rows()
    assert all(reaches == (word in said or tokens is not None) for word, tokens, reaches in words)
    assert 0 < sum(reaches for *_, reaches in words) < len(words)


def test_neighbours_are_those_of_all_vectors_compared(toy):
    """Also where more words are equally near than are kept: then by their number. What is kept is all that query feature_search reads."""
    words = toy.sql("SELECT word, share, reaches, vector, neighbours, nearness FROM words ORDER BY place").rows(named=True)
    others = [row for row in words if row["vector"] and row["reaches"]]
    assert all(row["reaches"] for row in words[: len(others)]) and len(others) > 100
    for row in words[: len(others) : 7]:
        near = []
        for number, other in enumerate(others):
            product = sum(a * b for a, b in zip(row["vector"], other["vector"], strict=True))
            if product >= 0.4 and other["share"] < 1:
                near.append((product**2 * min(1, math.log(other["share"]) / min(-0.05, math.log(row["share"]))), -number))
        expected = [(-number, value) for value, number in sorted(near, reverse=True)[:48]]
        kept = [(number, value) for number, value in zip(row["neighbours"], row["nearness"], strict=True) if value]
        assert [value for _, value in kept] == pytest.approx([value for _, value in expected], abs=1e-6), row["word"]
        assert {number for number, value in kept if value > kept[-1][1] + 1e-6} <= {number for number, _ in expected}
    same, shares = np.tile(np.eye(2, 80, dtype=np.float32)[:1], (60, 1)), np.full(60, 0.1)
    numbers, nearness = words_module._neighbours(same, shares, 55)
    assert (numbers == np.arange(48)).all() and nearness == pytest.approx(1)
    assert words_module._neighbours(same * np.float32(1.0000002), shares, 55)[1].max() == 1, (
        "rounded vectors are not nearer than equal"
    )
    numbers, nearness = words_module._neighbours(same[:3], np.array([1.0, 0.5, 0.25]), 2)
    assert numbers[:, 0].tolist() == [1, 1, 1] and nearness[:, 0] == pytest.approx([1, 1, 0.5]) and not nearness[:, 1:].any()


TABLES = ("words", "word_pages", "word_forms", "word_statistics", "explanation_words")
LATER = {
    "words": ("word_hash", "place", "neighbours", "nearness"),
    "word_statistics": ("n_vectors",),
    "explanation_words": ("place",),
}
"""Columns by which words and their neighbours are found."""
PLACE, TOKEN_PLACE = (f"md5_number_lower('another') // {n} * {n} + place % {n}" for n in (2**24, 2**28))


def test_an_earlier_database_gets_the_same_words_and_each_dictionary_its_own_hits(toy, tmp_path):
    """Of two dictionaries of the same features each has the hits that it has alone."""
    path = Path(shutil.copy(toy.path, tmp_path))
    with duckdb.connect(path) as connection:
        connection.execute(
            "DROP TABLE word_forms; DROP TABLE word_pages; UPDATE word_statistics SET made_from = '2:' || made_from"
        )
        for table, columns in LATER.items():
            connection.execute("; ".join(f"ALTER TABLE {table} DROP COLUMN {column}" for column in columns))
        connection.execute("DELETE FROM schema_migrations WHERE name[:4] IN ('0040', '0046', '0049', '0085')")
    with connect(path, write=True):
        pass
    by_letters = Database(path).search("Lisbon")["found_in"].to_list()
    assert by_letters and not any("near" in why for why in by_letters), "until the next load"
    refresh_words(path)
    with connect(path, write=True) as connection:
        migrated = [connection.sql(f"FROM {table} ORDER BY ALL").pl() for table in TABLES]
        of_dictionary = [name for name, table in all_tables().items() if not table.is_view and "dict_id" in table.column_names]
        for name in of_dictionary:
            places = {"explanation_words": "md5_number_lower('another ' || word)", "token_features": TOKEN_PLACE, "words": PLACE}
            also = f", {places[name]} AS place" if name in places else ""
            connection.execute(f"INSERT INTO {name} BY NAME SELECT * REPLACE ('another' AS dict_id{also}) FROM {name}")
        connection.execute(NEW_PAGES)
    assert all(found.equals(toy.sql(f"FROM {table} ORDER BY ALL")) for found, table in zip(migrated, TABLES, strict=True))
    for text in ("capital cities", "opposite of hot"):
        alone, both = toy.search(text, limit=10), Database(path).search(text, limit=40)
        assert both["dict_id"].n_unique() == 2
        for _, of_one in both.group_by("dict_id"):
            assert of_one.drop("dict_id").head(10).equals(alone.drop("dict_id"))


def test_an_export_of_an_earlier_cltdb_is_searched_by_letters(toy, tmp_path):
    export(toy.path, tmp_path / "exported")
    description = tmp_path / "exported/export.json"
    said = json.loads(description.read_text())
    del said["tables"]["word_forms"], said["tables"]["word_pages"]
    for table, columns in {**LATER, "token_features": ("rank", "place")}.items():
        said["tables"][table]["columns"] = [one for one in said["tables"][table]["columns"] if one not in columns]
    description.write_text(json.dumps(said))
    by_letters = Database(Path(shutil.copy(toy.path, tmp_path)))
    with connect(by_letters.path, write=True) as connection:
        connection.execute("UPDATE words SET neighbours = NULL, nearness = NULL; UPDATE token_features SET rank = NULL")
        connection.execute("UPDATE word_statistics SET n_vectors = NULL")
    for text in ("capital cities", "hot"):
        found, known = (of.search(text, limit=500) for of in (by_letters, toy))
        assert Database(tmp_path / "exported").search(text, limit=500).equals(found) and found.height and not found.equals(known)
    said = cltdb(tmp_path, "search", "hot", "--from", "exported").stderr
    assert said.endswith("neighbours in meaning are not known: an earlier cltdb made the words of exported; export it again\n")
    assert "neighbours" not in cltdb(tmp_path, "search", "hot", "--from", str(toy.path)).stderr
    assert without_neighbours(by_letters) and not without_neighbours(toy)


def test_the_same_rows_give_the_same_vectors_bit_for_bit(toy, tmp_path):
    again = toy_features.build(tmp_path)
    assert vectors(again).equals(vectors(toy.path)) and vectors(again)["vector"].drop_nulls().len() > 300


def test_stems_of_another_version_are_made_anew(database):
    before = Database(database).sql("FROM word_forms ORDER BY word")
    with connect(database, write=True) as connection:
        connection.execute("UPDATE word_forms SET stem = stem || '-'; UPDATE word_statistics SET made_from = '0:' || made_from")
    refresh_words(database)
    assert before.height and Database(database).sql("FROM word_forms ORDER BY word").equals(before)


def test_words_follow_what_is_loaded_and_taken_out(database, tmp_path, monkeypatch):
    db = Database(database)
    forms = lambda: set(db.sql("FROM word_forms")["word"]) == set(db.sql("FROM words")["word"])  # noqa: E731
    assert found(db, "Spain") == [] and found(db, "France") != []
    later = tiny_world.explain_tables(text="fires on 'Spain'")
    load(database, tmp_path, "later", later, started_at="2027-01-01T00:00:00+00:00")
    assert found(db, "Spain") != [] and forms()
    unload_artifact(database, key="later")
    assert found(db, "Spain") == [] and forms()
    with connect(database) as connection:
        assert changed_words(connection) == []
    monkeypatch.setattr(words_module, "_read", None)  # nothing has changed: nothing is read
    refresh_words(database)


def test_a_load_that_was_killed_before_its_words_is_made_good(tmp_path, database, artifacts, monkeypatch):
    directory = tmp_path / "a" / "later"
    monkeypatch.setattr("cltdb.database.load.refresh_words", lambda path: None)
    load(
        database,
        tmp_path / "a",
        "later",
        tiny_world.explain_tables(text="fires on 'Spain'"),
        started_at="2027-01-01T00:00:00+00:00",
    )
    monkeypatch.undo()
    assert lacks(database, [("later", directory)]) == ([], True) and found(Database(database), "Spain") == []
    assert load_artifact(database, key="later", directory=directory) == 0
    assert lacks(database, [("later", directory)]) == ([], False) and found(Database(database), "Spain") != []
