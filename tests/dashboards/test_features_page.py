"""The table of features: the part of its rows that a question asks for."""

import json
import math
from functools import cache

import polars as pl
import pytest
from visit import by_id, client_of, drawn, page_text, show, texts
from worlds import capitals_experiment as world

from cltdb.errors import CltdbError
from dashboards import data, urls
from dashboards.feature import table
from dashboards.pages import compare_features, features

pytestmark = pytest.mark.usefixtures("within_app")
ALL = {"dict_id": world.DICT, "dead": "1"}


def part(first=0, limit=1000, own=None, **question):
    return table.part(ALL | question, first=first, limit=limit, query=features.ask, search=features.hits, own=own)


def keys(found):
    return [tuple(map(int, row["name"].split(":"))) for row in found.rows]


@pytest.mark.parametrize("text", ["", "country"])
def test_own_labels_are_filtered_and_sorted_with_the_explanations_they_stand_before(text):
    """Of all features, and of those that were searched; also of one that has no explanation."""
    before = part(text=text)
    explained = next(row for row in before.rows if row["text"] not in ("not explained", "dead, never fires"))
    silent = [row for row in part().rows if row["text"] == "not explained"][: not text]
    own = {keys(table.Part([row], 1, ""))[0]: f"Ångström {row['name']}" for row in (explained, *silent)}
    found = part(text=text, own=own, about="ångström")
    assert sorted(row["text"] for row in found.rows) == sorted(
        f"own: Ångström {row['name']} · {row['text']}" for row in (explained, *silent)
    )
    assert part(text=text, own=own, about="ström 9999").n == 0 == part(text=text, about="ångström").n
    assert explained["name"] in [row["name"] for row in part(text=text, own=own, about=explained["text"]).rows]
    highest = part(text=text, own=own, sort="-text").rows
    assert {row["name"] for row in highest[: len(own)]} == {row["name"] for row in (explained, *silent)}
    assert part(text=text, own=own).n == before.n


@cache
def features_of(database):
    """Every feature as (layer, feature, text, score, density, max_activation, dead), NaN unknown."""
    with client_of(database).application.app_context(), data.session():
        rows = [
            data.query("feature_card", dict_id=world.DICT, layer=layer, feature=feature).row(0, named=True)
            for layer, feature in world.KEYS
        ]
    names = ("layer", "feature", "text", "score", "density", "max_activation", "dead")
    return [
        {name: None if isinstance(row[name], float) and math.isnan(row[name]) else row[name] for name in names} for row in rows
    ]


@pytest.mark.parametrize("name", ["score", "density", "max_activation", "layer", "text"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_all_rows_are_sorted_by_a_column_in_both_directions_unknown_ones_last(database, name, sign):
    rows = features_of(database)
    value = lambda row: row["text"].lower() if name == "text" else row[name]  # noqa: E731
    known = sorted((row for row in rows if row[name] is not None), key=lambda row: (row["layer"], row["feature"]))
    known.sort(key=value, reverse=bool(sign))
    unknown = [row for row in rows if row[name] is None]
    expected = [(row["layer"], row["feature"]) for row in known + sorted(unknown, key=lambda row: (row["layer"], row["feature"]))]
    found = part(sort=sign + name)
    assert keys(found) == expected and found.n == len(world.KEYS)


def test_parts_put_together_are_the_whole():
    whole = part(sort="-density")
    parts = [part(first=first, limit=7, sort="-density") for first in range(0, whole.n, 7)]
    assert [row for one in parts for row in one.rows] == whole.rows and {one.n for one in parts} == {whole.n}
    json.dumps(whole.rows, allow_nan=False)
    assert part(first=10_000).rows == []


def test_columns_filter_all_rows(database):
    rows = features_of(database)
    chosen = [row for row in rows if row["score"] is not None and row["score"] >= 0.6 and 1 <= row["layer"] <= 2]
    found = part(score="0.6..", layer="1..2")
    assert set(keys(found)) == {(row["layer"], row["feature"]) for row in chosen} and found.n == len(chosen) > 3
    assert keys(part(about="COUNTRIES")) == [world.CAPITALS] and part(about="%").n == 0
    assert part(density="..0").n + part(density="1e-300..").n + 1 == len(world.KEYS)  # one density is no number
    assert part(dead="").n == len(world.KEYS) - 1
    for name in table.RANGED:
        assert part(**{name: "9e99.."}).n == 0


@pytest.mark.parametrize(
    "text, found", [("0.5..0.9", (0.5, 0.9)), ("2..", (2, None)), ("..3", (None, 3)), ("2", (2, 2)), ("", (None, None))]
)
def test_ranges(text, found):
    assert table.bounds(text, name="score") == found


@pytest.mark.parametrize("text", ["x", "1..x", "nan", "..inf", "1..2..3"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(CltdbError, match="filter score"):
        table.bounds(text, name="score")
    answer, said = features.answer({"question": ALL | {"score": text}, "first": 0, "limit": 5, "number": 3})
    assert answer == {"number": 3, "rows": [], "n": 0} and "filter score" in said


def test_a_layer_and_feature_is_that_one_even_where_it_is_dead():
    layer, feature = world.DEAD
    found = part(text=f" {layer}:{feature} ", dead="")
    assert keys(found) == [world.DEAD] and found.said == f"feature {layer}:{feature}"
    assert part(text="3:9999").said == "There is no feature 3:9999."


def test_a_text_finds_features_by_relevance_with_the_reason():
    found = part(text="countri")
    assert (
        keys(found) == [world.CAPITALS]
        and found.said == "1 feature"
        and found.rows[0]["found_in"] == "explanation 'countries' (near 'countri')"
    )
    found = part(text="COUNTRY")
    assert keys(found)[0] == world.CAPITALS and "explanation 'countries'" in found.rows[0]["found_in"]
    assert all("(glossary: 'country'" in row["found_in"] for row in found.rows[1:]) and found.n > 1
    france = {row["name"]: row["found_in"] for row in part(text="Frances").rows}
    assert "fires on 'France' (" in france["2:7"] and "% of its strongest windows" in france["2:7"]
    nothing = part(text="% Parris")
    assert not nothing.rows and "no word is like “%”" in nothing.said and "“parris” (spelled like it: paris)" in nothing.said
    assert part(text="'; DROP TABLE features").n >= 0 and "No feature" in part(text="zebra").said


def test_the_hits_of_a_text_are_sorted_and_filtered_as_all_features_are():
    by_relevance, by_density = part(text="word1"), part(text="word1", sort="-density")
    assert set(keys(by_relevance)) == set(keys(by_density)) and keys(by_relevance) != keys(by_density)
    known = [row["density"] for row in by_density.rows if row["density"] is not None]
    assert len(known) > 4 and known == sorted(known, reverse=True)
    layer = part(text="word1", layer="1")
    assert 0 < layer.n < by_relevance.n and {row["layer"] for row in layer.rows} == {1}
    texts = [row["text"].lower() for row in part(text="word1", sort="text", about="word1").rows]
    assert texts == sorted(texts) and all("word1" in text for text in texts)
    assert part(text="word1", first=2, limit=3).rows == by_relevance.rows[2:5]


def test_hits_are_looked_up_once_while_the_database_stays(database, monkeypatch):
    asked = []
    monkeypatch.setattr(data, "search", lambda text, **_: asked.append(text) or pl.DataFrame({"found_in": []}))
    for _ in range(3):
        features.hits("looked up once", dict_id=world.DICT)
    assert asked == ["looked up once"]
    monkeypatch.setattr(features, "meant", lambda *_: ["once twice"])  # a project's own glossary has changed
    features.hits("looked up once", dict_id=world.DICT)
    assert asked == 2 * ["looked up once"]


def test_words_of_an_earlier_cltdb_are_said_to_have_no_neighbours(monkeypatch):
    assert "neighbours" not in part(text="capital Paris").said
    monkeypatch.setattr(data, "lacks_neighbours", lambda _: True)
    said = part(text="capital hills").said
    assert said.endswith(
        "neighbours in meaning are not known: an earlier cltdb made the words; the next `cltdb run`, or another export, mends it"
    )


def test_the_address_fills_in_the_form(database):
    fields = {"text": "Paris is", "dict_id": world.OTHER_DICT, "dead": "1", "sort": "-density", "layer": "1..2"}
    page = by_id(show(database, *urls.search_url(**fields, x="y").replace("?", " ?").split(" ")))
    assert page[features.TEXT]["value"] == "Paris is" and page[features.DICT_SELECT]["value"] == world.OTHER_DICT
    assert page[features.DEAD]["value"] == ["1"]
    assert page[features.FIELDS]["data"] == fields
    assert by_id(show(database, urls.SEARCH, "?dict_id=gone"))[features.DICT_SELECT]["value"] == world.DICT


def test_a_question_of_a_browser_cannot_ask_for_more_than_the_table_has():
    answer, _ = features.answer(
        {"question": ALL | {"sort": "x; DROP TABLE features", "nonsense": 1}, "first": 0, "limit": 10**9, "number": 1}
    )
    assert len(answer["rows"]) == len(world.KEYS) and answer["rows"][0]["name"]


def test_two_features_side_by_side_say_what_they_share(database):
    other, edge = (world.CAPITALS[0], world.CAPITALS[1] + 1), world.HOSTILE_FEATURE
    address = lambda *keys: urls.compare_features_url(*((world.DICT, *key) for key in keys)).partition("?")  # noqa: E731
    path, _, fields = address(world.CAPITALS, other)
    page = show(database, path, f"?{fields}")
    text = texts(page)
    for expected in (
        "names of countries",
        f"fires on word{other[1]}",
        "cosine of the decoders",
        "not stored",
        "peaks at the same places",
    ):
        assert expected in text
    assert len(drawn(page, "contexts")) == 2 and "edge between them" not in text
    path, _, fields = address(world.CAPITALS, edge)
    assert "the second writes to the first, TWERA −0.75, virtual weight −1.25" in page_text(database, path, f"?{fields}")
    path, _, fields = address(edge, world.CAPITALS)
    assert "the first writes to the second" in page_text(database, path, f"?{fields}")
    for wrong in ("", "?a=x&b=y", f"?a={world.DICT}/0/1"):
        assert "no such page" in page_text(database, path, wrong)
    assert "There is no feature 3:9999" in page_text(database, path, f"?a={world.DICT}/2/7&b={world.DICT}/3/9999")


def test_what_two_features_share_is_counted():
    window = lambda *places: [{"sequence": sequence, "position": position} for sequence, position in places]  # noqa: E731
    card = {"dict_id": "d/e", "layer": 1, "feature": 4, "promoted": [{"string": "a"}, {"string": "b"}], "suppressed": None}
    card |= {"tokens": [{"string": "x"}], "driven_by": [], "inhibited_by": []}
    other = card | {"feature": 5, "promoted": [{"string": "b"}, {"string": "c"}], "tokens": [{"string": "x"}]}
    found = [{"card": card, "contexts": window((1, 2), (3, 4))}, {"card": other, "contexts": window((3, 4), (3, 5), (1, 3))}]
    near = [{"neighbour": 5, "cosine": 0.5}, {"neighbour": 6, "cosine": 0.25}]
    said = {name: texts(text) for name, text in compare_features.shared(found, near, [])}
    assert said == {
        "cosine of the decoders": "0.5", "peaks at the same places": "1 of 2 and 3 windows", "fires on": "x", "promotes": "b",
        "suppresses": "none", "driven by": "none", "inhibited by": "none",
    }  # fmt: skip
    assert "less than 0.25" in dict(compare_features.shared(found, near[1:], []))["cosine of the decoders"]
    assert (
        compare_features.key_of("d/e/1/4") == {"dict_id": "d/e", "layer": 1, "feature": 4}
        and compare_features.key_of("1/4") is None
    )


def test_hits_that_filters_leave_are_counted_among_the_most_relevant():
    said = [table._counted(n, most=True) for n in (0, 137, table.MOST_HITS)]
    assert said[0].startswith("No feature matches")
    assert said[1:] == ["137 of the 2,000 most relevant features", "the 2,000 most relevant features"]


def test_of_a_dictionary_that_went_while_the_page_was_open_it_is_said_that_it_is_gone():
    for text in ("", "word1", "2:7"):
        [given, said] = features.answer({"number": 1, "question": {"dict_id": "gone", "text": text}, "first": 0, "limit": 100})
        assert given["rows"] == [] and said.startswith(
            ("There is no dictionary gone any more.", "search: found no dictionary 'gone'")
        )
    assert "any more" not in features.answer({"number": 1, "question": {**ALL, "text": "xyzzy"}, "first": 0, "limit": 9})[1]
