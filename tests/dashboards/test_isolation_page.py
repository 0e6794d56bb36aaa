"""The page Isolation: two dictionaries of a random experiment side by side, what is not defined, what it says where nothing was measured."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from test_groups_page import figures_of, tables_of
from visit import by_id, elements, page_text, show, texts
from worlds.random_experiment import DICT, LAYERS, OLD

from cltdb.database.api import Database
from dashboards import urls
from dashboards.isolation import figures
from dashboards.pages import isolation

BOTH = f"?dict_a={DICT}&dict_b={OLD}"


@pytest.fixture(scope="module")
def page(random_database):
    return show(random_database, urls.ISOLATION, BOTH)


@pytest.fixture(scope="module")
def asked(random_database):
    """A named query as rows."""
    return lambda name, **given: Database(random_database).query(name, **given).to_dicts()


def lines_of(figure):
    """{name: (values, upper ends)} of the lines of a figure."""
    return {
        trace["name"]: (list(trace["y"]), list(map(sum, zip(trace["y"], trace["error_y"]["array"], strict=True))))
        for trace in figure["data"]
    }


def told(figure):
    return [note["text"] for note in figure["layout"].get("annotations", [])]


def test_quantities_stand_against_strength_with_a_line_per_dictionary(page, asked):
    later, kl, *_ = figures_of(page)
    rows = [row for row in asked("isolation_by_layer") if row["layer"] is None]
    of = {dict_id: [row for row in rows if row["dict_id"] == dict_id] for dict_id in (DICT, OLD)}
    assert lines_of(later) == {
        DICT: tuple(pytest.approx([row[f"leakage_later{end}"] for row in of[DICT]]) for end in ("", "_high"))
    }
    assert [trace["name"] for trace in kl["data"]] == [DICT, OLD]
    assert lines_of(kl)[OLD][0] == pytest.approx([row["kl_nats"] for row in of[OLD]])
    assert later["layout"]["xaxis"]["tickvals"] == [1, 4] and "nothing is read again" in texts(page)


def test_each_dictionary_has_its_layers_on_common_axes_and_says_what_is_not_defined(page, asked):
    later, of_plt, kl, kl_of_plt = figures_of(page)[2:6]
    rows = [row for row in asked("isolation_by_layer", dict_id=DICT, multiple=4.0) if row["layer"] is not None]
    assert lines_of(later)["4 ×"][0] == pytest.approx([row["leakage_later"] for row in rows[:-1]])
    assert lines_of(kl)["4 ×"][1] == pytest.approx(
        [row["kl_nats_high"] or row["kl_nats"] for row in rows if row["kl_nats"] is not None]
    )
    assert told(of_plt) == [figures.LATER.missing] and of_plt["data"] == []
    assert kl["layout"]["yaxis"]["range"] == kl_of_plt["layout"]["yaxis"]["range"]
    assert kl["layout"]["xaxis"]["range"] == kl_of_plt["layout"]["xaxis"]["range"]


def test_each_feature_stands_by_its_overlap_and_leakage_and_the_loudest_lead_to_their_pages(page, asked):
    scatter = figures_of(page)[6]
    rows = asked("isolation_features", dict_id=DICT, multiple=1.0)
    points = {(x, y) for trace in scatter["data"] for x, y in zip(trace["x"], trace["y"], strict=True)}
    assert points == {(row["decoder_overlap"], row["leakage_later"]) for row in rows} and len(points) == 5 * (LAYERS - 1)
    assert [trace["name"] for trace in scatter["data"]] == [f"layer {layer}" for layer in range(LAYERS - 1)]
    first = rows[0]
    assert urls.feature_url(DICT, first["layer"], first["feature"]) in str(page)
    assert [row[0] for row in tables_of(page)[0][1:]] == [f"{row['layer']}:{row['feature']}" for row in rows[:10]]
    [whole] = [urlsplit(one["href"]) for one in elements(page) if f"p.dict_id={DICT}" in (one.get("href") or "")]
    assert dict(parse_qsl(whole.query))["p.multiple"] == "1.0"


def test_facts_stand_against_strength_and_in_numbers(page, asked):
    drop, include = figures_of(page)[8:10]
    rows = [row for row in asked("isolation_facts", dict_id=DICT) if row["layer"] is None]
    assert lines_of(drop)[DICT] == tuple(pytest.approx([row[name] for row in rows]) for name in ("drop_rate", "drop_high"))
    assert lines_of(include)[DICT][0] == pytest.approx([row["include_rate"] for row in rows])
    *_, numbers, _, everything = tables_of(page)
    assert [row[:2] for row in numbers[1:]] == [[f"{m} ×", str(layer)] for m in (1, 4) for layer in ("all", *range(LAYERS))]
    assert [row[0] for row in everything[1:]] == [DICT, OLD]


def test_the_address_holds_the_choices_and_foreign_ones_are_left(random_database):
    def chosen(search):
        found = by_id(show(random_database, urls.ISOLATION, search))
        return [found[name]["value"] for name in (isolation.DICTIONARY, isolation.BESIDE, isolation.STRENGTH)]

    assert chosen("") == chosen("?dict_a=gone&dict_b=x&multiple=y") == [DICT, OLD, 1]
    assert chosen(f"?dict_a={OLD}&multiple=4.0") == chosen(f"?dict_a={OLD}&dict_b={OLD}&multiple=4.0") == [OLD, isolation.NONE, 4]
    asked = [OLD, DICT, 4]  # a browser knows no 4.0
    assert chosen(f"?{urlsplit(isolation.go(*asked, [OLD, isolation.NONE, 1.0])).query}") == asked
    alone = show(random_database, urls.ISOLATION, f"?dict_a={DICT}&multiple=4.0")
    assert len(figures_of(alone)) == 7 and f"{DICT}, raised by 4" in texts(alone)


@pytest.mark.usefixtures("within_app")
def test_an_sae_has_leakage_in_its_own_layer_beside_a_transcoder_that_has_none():
    quantities = {name: None for name in ("leakage_later", "kl_nats", "decoder_overlap", "drop", "include")}
    empty = (
        quantities
        | {f"{name}_{end}": None for name in quantities for end in ("low", "high")}
        | {"own_response": 1.0, "most_change": 0.5}
    )

    def side(dict_id, same, multiple=1.0):
        ends = {"leakage_same": same, "leakage_same_low": same and same - 0.25, "leakage_same_high": same and same + 0.5}
        rows = [
            empty | ends | {"dict_id": dict_id, "swept": None, "multiple": multiple, "layer": layer, "n_features": 3}
            for layer in (None, 2)
        ]
        feature = {
            "dict_id": dict_id,
            "layer": 2,
            "feature": 5,
            "leakage": 1.0,
            "leakage_same": same,
            "leakage_later": None,
            "decoder_overlap": 2.0,
        }
        feature |= dict.fromkeys(("concept", "text", "most_layer", "most_feature", "most_change", "most_text"))
        return isolation.Side(dict_id, dict_id, rows, [feature] if multiple == 1 else [])  # what is known where 1 × is shown

    sides = [side("sae", 0.5), side("clt", None)]
    shown = isolation.view(sides, [row for one in sides for row in one.rows], 1.0)
    drawn = [figure.to_plotly_json() for figure in figures_of(shown)]
    assert lines_of(drawn[0]) == {"sae": ([0.5], [1.0])} and lines_of(drawn[3]) == {"1 ×": ([0.5], [1.0])}
    assert told(drawn[4]) == [figures.SAME.missing] and isolation.NOT_SAME not in texts(shown)
    assert [list(trace["y"]) for trace in drawn[9]["data"]] == [[0.5]]
    assert "facts: {toyworld: true}" in texts(shown)
    sides = [side("sae", 0.5), side("twice", 0.25, multiple=2.0)]
    rows = [row for one in sides for row in one.rows]
    shown = isolation.view(sides, rows, 1.0)
    [*_, of_other] = [figure.to_plotly_json() for figure in figures_of(shown)]
    assert told(of_other) == ["not raised by 1 ×"] and "none is known" in texts(shown)
    assert [one["label"] for one in by_id(shown)[isolation.STRENGTH]["options"]] == ["1 ×", "2 ×"]
    alone = isolation.view(sides[1:], rows, isolation.strength(sides[1].rows, "1.0"))
    assert [(by_id(alone)[isolation.STRENGTH][name]) for name in ("options", "value")] == [[{"label": "2 ×", "value": 2.0}], 2.0]


def test_dictionaries_of_a_sweep_are_named_by_what_differs():
    swept = {
        "a": '{"seed": 0, "train.kind": "clt", "train.orthogonality.coefficient": 0}',
        "b": '{"seed": 0, "train.kind": "clt", "train.weight_decay": 0.1}',
    }
    assert isolation.short_names(swept) == {"a": "coefficient 0", "b": "weight_decay 0.1"}
    assert isolation.short_names({"a": None, "b": "{}"}) == {"a": "a", "b": "b"} and isolation.short_names({"a": swept["a"]}) == {
        "a": "a"
    }


def test_without_a_measurement_the_page_says_how_to_make_one(bare_database):
    said = page_text(bare_database, urls.ISOLATION)
    assert "evaluate: {isolation: {}}" in said and "cltdb run SPEC" in said
