"""The page that compares two graphs."""

import re

import polars as pl
import pytest
from visit import by_id, elements, show, texts
from worlds import capitals_experiment as world

from dashboards import data, urls
from dashboards.components import named_by_prompt
from dashboards.graph import compared
from dashboards.pages import compare


@pytest.fixture(scope="module")
def page(database):
    return show(database, urls.compare_url(world.GRAPH, world.SECOND_GRAPH))


def test_features_of_both_stand_beside_those_of_one_alone(page):
    first, second = ({(n["layer"], n["feature"]) for n in world.graph_nodes(n) if n["kind"] == "feature"} for n in (3, 9))
    said = re.sub(r"\s+", " ", texts(page))
    for n, where in (
        (first & second, "in both"),
        (first - second, "in the first alone"),
        (second - first, "in the second alone"),
    ):
        assert f" {len(n)} {where}" in said
    assert "names of countries after “capital of”" in said and "silent" in said


def test_all_features_are_counted_whatever_the_query_gives_by_itself(database, page, monkeypatch):
    asked = data.query

    def one(name, **given):
        return asked(name, **({"limit": 1} if name == "graph_features_compared" else {}) | given)

    monkeypatch.setattr(data, "query", one)
    assert texts(show(database, urls.compare_url(world.GRAPH, world.SECOND_GRAPH))) == texts(page)


def test_influences_are_links_to_the_node_in_each_graph(page):
    links = [part["href"] for part in elements(page) if "href" in part]
    nodes = {i: n for i, n in enumerate(world.graph_nodes(3)) if n["kind"] == "feature"}
    of_capitals = [i for i, n in nodes.items() if (n["layer"], n["feature"]) == world.CAPITALS]
    assert any(f"/graph/{world.GRAPH}?sel={i}" in links for i in of_capitals)
    assert any(link.startswith(f"/graph/{world.SECOND_GRAPH}?sel=") for link in links)
    assert urls.feature_url(world.DICT, *world.CAPITALS) in links


@pytest.mark.usefixtures("within_app")
def test_the_influence_of_a_feature_is_that_of_all_its_places():
    rows = data.query("graph_features_compared", graph_id=world.GRAPH, other=world.SECOND_GRAPH).to_dicts()
    for name, n in (("", 3), ("other_", 9)):
        expected = {}
        for node in world.graph_nodes(n):
            if node["kind"] == "feature":
                place = (node["layer"], node["feature"])
                expected[place] = expected.get(place, 0.0) + node["influence"]
        found = {(row["layer"], row["feature"]): row[f"{name}influence"] for row in rows if row[f"{name}influence"] is not None}
        assert found == pytest.approx(expected)
    assert [row for row in rows if not (row["kept"] or row["other_kept"])] == []


def test_a_graph_alone_is_compared_with_the_one_most_like_it(database):
    found = by_id(show(database, urls.compare_url(world.GRAPH)))
    assert (found[compare.FIRST]["value"], found[compare.SECOND]["value"]) == (world.GRAPH, world.SECOND_GRAPH)
    assert "There is no graph x/y" in texts(show(database, urls.compare_url(world.GRAPH, "x/y")))
    assert "There is no graph nothing" in texts(show(database, urls.compare_url("nothing")))


def test_graphs_of_one_prompt_are_told_apart_by_their_ids():
    graphs = pl.DataFrame({"graph_id": ["a", "b", "c", "d"], "prompt": ["twice", "twice", "a long one", None]})
    assert list(named_by_prompt(graphs).values()) == ["twice (a)", "twice (b)", "a long one", "d"]
    assert list(named_by_prompt(graphs, 4).values()) == ["twi… (a)", "twi… (b)", "a l…", "d"]


def test_a_feature_of_one_dictionary_is_none_of_another():
    graph = {"graph_id": "a", "dict_id": "d", "name": world.HOSTILE, "top_logit": None, "top_probability": None}
    graph |= dict.fromkeys(compared.MEASURES)
    said = texts(compared.scores(graph, graph, None))
    assert world.HOSTILE[:20] in said and "–" in said
    assert compared.sources(pl.DataFrame(schema={"token": pl.Int32}), graph, graph) is None
    assert not compare._one_dictionary(graph, graph | {"dict_id": "e"}) and not compare._one_dictionary(
        *[graph | {"dict_id": None}] * 2
    )
