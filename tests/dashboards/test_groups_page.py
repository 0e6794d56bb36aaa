"""The page Groups: figures and tables of a made-up comparison, its choices, its address, what it says where something is missing."""

import json
from itertools import combinations
from urllib.parse import parse_qsl, urlsplit

import polars as pl
import pytest
from visit import by_id, drawn, elements, page_text, show, texts
from worlds import capitals_experiment as world
from worlds.compared_labels import BARE, LABELS, POINTS, WHOLE, overlap

from dashboards import data, urls
from dashboards.groups import figures, tables
from dashboards.pages import groups

FR, DE, EN = LABELS


@pytest.fixture(scope="module")
def page(database):
    return show(database, urls.GROUPS)


def tables_of(part):
    """Every table of a page: its rows as lists of texts, the head first."""
    found = []
    for properties in elements(part):
        name = (properties.get("className") or "").split()
        if "numbers" in name:
            found.append([[texts(cell).strip() for cell in row] for row in rows_within(properties["children"])])
    return found


def rows_within(children):
    for one in children if isinstance(children, list) else [children]:
        one = one.to_plotly_json() if hasattr(one, "to_plotly_json") else one
        if isinstance(one, dict) and one["type"].lower() == "tr":
            cells = one["props"]["children"]
            yield cells if isinstance(cells, list) else [cells]
        elif isinstance(one, dict):
            yield from rows_within(one["props"]["children"])


def figures_of(part):
    return [one["figure"] for one in elements(part) if "figure" in one]


def lines(figure):
    """{name: values} of the lines that have a name in the legend."""
    return {trace["name"]: list(trace["y"]) for trace in figure["data"] if trace["mode"] == "lines+markers"}


def overlaps_of(pair, keyed_by="free", weighting="none"):
    return [pytest.approx(overlap(layer, *(pair or (None, None)), keyed_by, weighting)) for layer in range(world.N_LAYERS)]


def test_an_interval_that_ends_at_zero_is_drawn_and_a_missing_one_is_not():
    rows = [
        {"layer": 0, "corrected": 0.25, "corrected_low": 0.0, "corrected_high": 0.5},
        {"layer": 1, "corrected": -0.25, "corrected_low": -0.5, "corrected_high": 0.0},
        {"layer": 2, "corrected": 0.125, "corrected_low": None, "corrected_high": None},
    ]
    error = figures.corrected(rows).data[0].error_y
    assert list(error.array) == [0.25, 0.25, 0] and list(error.arrayminus) == [0.25, 0.25, 0]


def test_overlaps_are_drawn_with_their_nulls_and_bands_and_told_in_numbers(page):
    shared, less, _ = figures_of(page)
    own = overlaps_of(None)
    name, same, other = (one[0] for one in figures.OVERLAPS.values())
    drawn_lines = lines(shared)
    assert drawn_lines[name] == own
    assert drawn_lines[same] == [pytest.approx(value.expected / 2) for value in own]
    assert drawn_lines[other] == [pytest.approx(value.expected / 4) for value in own]
    band = next(trace for trace in shared["data"] if trace.get("fill"))
    assert band["y"][:4] == [pytest.approx(value.expected - 0.02) for value in own]
    assert band["y"][4:] == [pytest.approx(value.expected + 0.03) for value in reversed(own)]
    [error] = [trace for trace in less["data"] if trace.get("error_y")]
    assert error["y"] == [pytest.approx(0.75 * value.expected) for value in own]
    assert error["error_y"]["array"] == [pytest.approx(0.05)] * 4 and error["error_y"]["arrayminus"] == [pytest.approx(0.04)] * 4
    numbers = tables_of(page)[0]
    assert numbers[0] == ["layer", "overlap", "same label", "other label", "less chance", "pairs"]
    assert numbers[3] == [
        "2",
        "0.7 (0.68 to 0.73)",
        "0.35 (0.34 to 0.36)",
        "0.175 (0.165 to 0.185)",
        "0.525 (0.485 to 0.575)",
        "3",
    ]


@pytest.mark.usefixtures("within_app")
@pytest.mark.parametrize("pair", [None, *combinations(LABELS, 2)])
@pytest.mark.parametrize("keyed_by", groups.PLACES)
@pytest.mark.parametrize("weighting", groups.WEIGHTINGS)
def test_the_choices_choose_the_rows_of_the_overlap(pair, keyed_by, weighting):
    chosen = groups.show_overlap(WHOLE, json.dumps(pair) if pair else groups.ALL, weighting, keyed_by)
    assert lines(figures_of(chosen)[0].to_plotly_json())["one concept, two labels"] == overlaps_of(pair, keyed_by, weighting)


def test_each_label_stands_with_its_answers_and_metrics_and_its_errors_by_layer(page):
    served, errors = tables_of(page)[1:3]
    assert [row[0] for row in served] == ["label", *LABELS]
    assert served[2][1:] == ["3", "3", "33.3 %", "50 %", "0.6", "1.12", "8.5", "3", "3.25", "1.5"]
    assert errors[0] == ["label, layer", "0", "1", "2", "3"] and errors[1:] == [
        [label, *[f"{25 * (1 + place)} %"] * 4] for place, label in enumerate(LABELS)
    ]
    heat = [one["style"]["--heat-share"] for one in elements(page) if one.get("className") == "heat"]
    assert heat[:12] == ["0.333"] * 4 + ["0.667"] * 4 + ["1.000"] * 4


def test_features_are_counted_as_specific_shared_and_between(page):
    bars = {trace["name"]: list(trace["y"]) for trace in figures_of(page)[2]["data"]}
    assert bars == {"shared": [9 / 27] * 4, "between": [pytest.approx(12 / 27)] * 4, "specific": [6 / 27] * 4}
    assert tables_of(page)[3][1] == ["0", "27", "6 (22.2 %)", "0", "9 (33.3 %)", "0.7"]


def test_substitutions_of_all_pairs_stand_beside_their_controls(page):
    results, controls = tables_of(page)[4:6]
    assert results[1:] == [[label, *("–" if other == label else "50 %" for other in LABELS)] for label in LABELS]
    assert len(controls) == 7 and controls[1][:2] == [FR, DE]
    assert controls[1][2:] == [
        "50 % (29.9 % to 70.1 %)", "15 %", "5 %, at most 10 %", "0 %", "75 %", "20 %", "10 %", "10 %", "2.5", "2.5", "20", "2 at ×0, 3 at ×2, last",
    ]  # fmt: skip


def test_a_point_of_exchanged_values_says_by_what_part_of_their_change_features_moved():
    row = POINTS[3] | {"set_to": "exchanged", "suppress": 1.5, "boost": 1.5, "n_suppressed": 2, "n_boosted": 3}
    assert tables._point(row) == "5 moved by ×1.5 of their change, last"
    assert tables._point(row | {"set_to": "shifted"}) == "5 moved by ×1.5 of their mean change, last"


@pytest.mark.usefixtures("within_app")
@pytest.mark.parametrize("values", ["exchanged", "shifted"])
def test_the_grid_of_features_that_move_has_one_multiple_for_both_labels(monkeypatch, values):
    asked = data.query

    def moved(name, **params):
        of_points = {"suppress": pl.col("boost")} if name == "substitution_grid" else {}
        return asked(name, **params).with_columns(set_to=pl.lit(values), **of_points)

    monkeypatch.setattr(data, "query", moved)
    shown = groups.show_substitution(WHOLE, json.dumps((DE, EN)))
    assert tables_of(shown)[0][0] == ["features, positions", "×1", "×2"]
    assert "last token alone" in texts(shown) and "99th percentile" not in texts(shown)


@pytest.mark.usefixtures("within_app")
def test_the_grid_of_a_pair_has_both_directions_and_marks_the_best_point():
    shown = groups.show_substitution(WHOLE, json.dumps((DE, EN)))
    *grids, controls = tables_of(shown)
    wanted = [["features, positions", "×0, ×1", "×0, ×2"], ["1, last", "15 %", "30 %"], ["3, last", "45 %", "60 %"]]
    assert grids == [wanted, wanted] and [row[:2] for row in controls[1:]] == [[DE, EN], [EN, DE]]
    assert f"{DE} to {EN}" in texts(shown) and f"{EN} to {DE}" in texts(shown)
    best = [one["title"] for one in elements(shown) if (one.get("title") or "").startswith("the best point")]
    assert len(best) == 2 and POINTS[3]["boost"] == 2.0
    assert [texts(one["children"]) for one in elements(shown) if one.get("className") == "heat best"] == ["60 %", "60 %"]


def test_label_features_lead_to_their_pages_and_show_their_strongest_windows(page):
    together, listed = tables_of(page)[6:8]
    assert together == [["label, features", "1", "all"], *([label, "0.61", "0.62"] for label in LABELS)]
    [whole] = [urlsplit(one["href"]) for one in elements(page) if "query=label_features" in (one.get("href") or "")]
    asked = dict(parse_qsl(whole.query))
    assert asked["p.first_layer"] == "0" and int(asked["p.limit"]) > 10_000 and {"p.label", "p.groups_id"} < set(asked)
    features = listed[1::2]
    assert features[0] == ["0:5", "0.4", "1.5", "75 %", "0.875", "0.625", "12.5 %", "−0.25"] and features[1][5] == "–"
    contrasts = [float(row[1]) for row in features]
    assert len(features) == 8 and contrasts == sorted(contrasts, reverse=True)
    links = [one["href"] for one in elements(page) if "/feature/" in (one.get("href") or "")]
    assert links[0] == urls.feature_url(world.DICT, 0, 5) and "fires on word5" in listed[2][0]
    snippets = drawn(page, "snippets")
    assert len(snippets) == 8 and all(0 < len(one["windows"]) <= 2 for one in snippets)
    assert max(snippets[0]["windows"][0]["heat"]) == 1


@pytest.mark.usefixtures("within_app")
def test_the_features_are_those_of_the_label_and_the_layers():
    shown = groups.show_features(WHOLE, EN, 2)
    *_, listed = tables_of(shown)
    assert [row[0] for row in listed[1::2]] == ["2:25", "2:26", "3:25", "3:26"]
    assert tables_of(shown)[0][1] == [FR, "0.81", "0.82"]


def test_the_address_holds_the_choices_and_foreign_ones_are_left(database):
    def chosen(search):
        found = by_id(show(database, urls.GROUPS, search))
        names = (groups.COMPARISON, groups.PAIR, groups.WEIGHTING, groups.KEYED_BY, groups.LABEL, groups.FIRST_LAYER)
        return tuple(found[name]["value"] for name in names)

    asked = (WHOLE, json.dumps((FR, EN)), "influence", "end", DE, 2)
    url = groups.link(*asked)
    assert chosen(f"?{urlsplit(url).query}") == asked and dict(parse_qsl(urlsplit(url).query))["label_a"] == FR
    plain = (WHOLE, groups.ALL, "none", "free", FR, 0)
    assert chosen("") == chosen("?groups_id=gone&label_a=xx&label_b=en&weighting=x&keyed_by=&label=zz&first_layer=77") == plain
    assert dict(parse_qsl(urlsplit(groups.go(BARE, WHOLE, "influence", "free")).query))["groups_id"] == BARE


def test_what_is_missing_is_said_with_what_makes_it(database, bare_database):
    bare = page_text(database, urls.GROUPS, f"?groups_id={BARE}")
    for expected in ("give the sources of activations.text a label", "groups.substitute", "write groups.label_features into"):
        assert expected in bare
    nothing = page_text(bare_database, urls.GROUPS)
    assert "No labels were compared yet" in nothing and "cltdb run" in nothing
