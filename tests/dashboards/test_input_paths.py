"""The stored paths of a graph: as the panel Paths lists them, and as one of them is drawn."""

from collections import defaultdict

import pytest
from dash import no_update
from visit import drawn, texts
from worlds import capitals_experiment as world

from dashboards.graph import stored
from dashboards.pages import graph as graph_page

ASKED = {"node_share": 0.8, "edge_share": 0.98, "path": None, "stored_path": None, "tab": "paths"}


@pytest.fixture(scope="module")
def tables():
    graph = world.graph_tables()
    return graph | world.path_tables(graph)


def ask(graph_id=world.GRAPH, **asked):
    """(what is drawn, what is shown)."""
    found, *shown, _ = graph_page.find_paths({"graph_id": graph_id} | ASKED | asked, None)
    return found, shown


def test_paths_are_listed_by_target_in_words_with_their_sign_and_what_is_left_out(within_app, tables):
    drawing, shown = ask()
    assert drawing == {"path": None, "stored_path": None, "paths": []}
    [data] = drawn(shown, "inputPaths")
    [target] = data["targets"]
    assert (
        target["name"] == "Paris 92 %" and "These 20 paths carry 60 %" in target["said"] and "40 % is left out" in target["said"]
    )
    assert [one["path_id"] for one in target["paths"]] == [row["path_id"] for row in tables["paths"]]
    assert [one["tone"] for one in target["paths"]] == [
        "promotes" if row["weight"] > 0 else "suppresses" for row in tables["paths"]
    ]
    first = [row for row in tables["path_steps"] if row["path_id"] == 0]
    node = tables["nodes"][first[0]["target_id"]]
    token, via, feature, answer = target["paths"][0]["line"]
    assert token == f"“{world.WORDS[tables['nodes'][first[0]['source_id']]['token']]}”" and via == "L1H0"
    assert answer == "“Paris”" and f"word{node['feature']}" in feature


def test_the_steps_of_a_path_are_told_with_the_factors_of_their_routes(within_app, tables):
    drawing, shown = ask(stored_path=3)
    steps = [row for row in tables["path_steps"] if row["path_id"] == 3]
    sums = defaultdict(float)
    for row in steps:
        sums[row["source_id"], row["target_id"]] += row["input_factor"] * row["weight_factor"]
    [path] = drawing["paths"]
    assert list(zip(path["nodes"], path["nodes"][1:], strict=False)) == list(sums)
    assert path["weights"] == pytest.approx(list(sums.values())) and drawing["stored_path"] == 3
    said = texts(shown)
    assert "L1H0 reads " in said and said.count("residual stream") == 2
    factors = steps[0]["input_factor"], steps[0]["weight_factor"]
    assert f"{graph_page.input_paths.number(factors[0])} {graph_page.input_paths.number(factors[1])}" in said


def test_the_list_is_made_anew_only_where_it_says_something_else(within_app):
    *_, listed = graph_page.find_paths({"graph_id": world.GRAPH} | ASKED, None)
    again = graph_page.find_paths({"graph_id": world.GRAPH} | ASKED | {"stored_path": 1}, listed)
    assert again[2:] == (no_update, no_update) and "The path that is drawn" in texts(again[1])
    assert graph_page.find_paths({"graph_id": world.SECOND_GRAPH} | ASKED, listed)[3] != listed


def test_a_path_that_is_not_there_is_said(within_app):
    drawing, shown = ask(stored_path=77)
    assert drawing["paths"] == [] and "no path 77" in texts(shown)


def test_a_graph_without_stored_paths_has_the_strongest_from_each_input(within_app):
    drawing, shown = ask(world.SECOND_GRAPH)
    assert drawing["paths"] == [] and "From tokens and errors to the answers" in texts(shown) and not drawn(shown, "inputPaths")


def test_two_ends_come_before_a_stored_path(within_app):
    nodes = stored.graph(world.GRAPH).nodes
    ends = {"from": nodes.filter(kind="embedding")["node_id"][0], "to": nodes.filter(kind="logit")["node_id"][0]}
    drawing, shown = ask(path=ends)
    assert drawing["path"] == ends and drawing["stored_path"] is None and "Strongest paths from" in texts(shown)
