"""What the server tells the page of a graph: pruned parts, edges of a node, what is sent to the browser."""

import os
import shutil

import numpy as np
import polars as pl
import pytest
from visit import client_of
from worlds import capitals_experiment as world

from cltdb.database import Database, store
from cltdb.database.store import connect
from cltdb.errors import CltdbError
from cltdb.graphs.stored_graph import prune_stored
from dashboards.graph import payload, pruned, scores, stored, subgraph
from dashboards.pages import compare as compare_page
from dashboards.pages import graph as graph_page

SHARES = [(0.5, 0.9), (0.8, 0.98), (0.95, 0.5), (1.0, 1.0), (0.0, 0.0)]
GRAPHS = [world.GRAPH, world.SECOND_GRAPH]


@pytest.fixture(params=["kept in memory", "read for each question"])
def reading(request, monkeypatch, within_app):
    """Both ways of reading edges: of small graphs and of large ones."""
    if request.param != "kept in memory":
        monkeypatch.setattr(stored, "KEPT_EDGES", 0)
    stored._graph.cache_clear()


def whole(database, graph_id):
    """(nodes, edges) of all of a graph, read without the page's help."""
    nodes, edges = Database(database).graph_nodes(graph_id), Database(database).graph_edges(graph_id)
    return nodes.sort("node_id"), edges.sort("target_id", "source_id")


@pytest.mark.parametrize("node_share, edge_share", SHARES)
def test_a_part_is_what_pruning_makes_of_the_whole_graph(database, reading, node_share, edge_share):
    for graph_id in GRAPHS:
        nodes, edges = whole(database, graph_id)
        twin = prune_stored(nodes, edges, node_threshold=node_share, edge_threshold=edge_share)
        kept = pruned.subgraph(graph_id, node_share=node_share, edge_share=edge_share)
        assert kept.nodes["node_id"].to_list() == twin.nodes["node_id"].to_list()
        columns = ["source_id", "target_id", "weight", "influence"]
        assert kept.edges.select(columns).equals(twin.edges.select(columns))
        for part in (kept.scores, scores.of_shown(stored.graph(graph_id), kept, hidden=[])):
            assert part == pytest.approx(twin.scores, nan_ok=True)


def test_scores_of_what_is_pinned_count_all_else_as_error(database, reading):
    nodes, edges = whole(database, world.GRAPH)
    pinned = nodes.filter(kind="feature")["node_id"].to_list()[::3]
    members = nodes.filter(pl.col("node_id").is_in(pinned) | pl.col("kind").is_in(["embedding", "logit"]))["node_id"].to_list()
    is_in = [s in members and t in members for s, t in edges.select("source_id", "target_id").iter_rows()]
    twin = scores.part_scores(nodes, edges, is_in)
    assert scores.of_pinned(stored.graph(world.GRAPH), pinned=pinned) == pytest.approx(twin)


def test_the_strongest_edges_of_a_node_are_those_of_the_named_query(database, reading):
    for graph_id in GRAPHS:
        graph = stored.graph(graph_id)
        last_of_kinds = graph.nodes.unique("kind", keep="last")["node_id"]
        for node_id in {*graph.nodes["node_id"].to_list()[::30], *last_of_kinds}:
            twin = Database(database).query("node_edges", graph_id=graph_id, node_id=node_id, limit=4)
            assert graph.strongest(node_id, 4).equals(twin), node_id


def test_a_graph_too_large_to_prune_is_drawn_without_edges_and_says_so(database, reading, monkeypatch):
    monkeypatch.setattr(stored, "MAX_EDGES", 5)
    monkeypatch.setattr(stored, "KEPT_EDGES", 5)
    sent = pruned.pruned_graph(world.GRAPH, node_share=0.8, edge_share=0.98)
    assert sent["edges"]["source"] == [] and len(sent["kept"]) > 5
    assert "No edges are drawn" in sent["caption"] and "at most 5" in sent["caption"]
    with pytest.raises(CltdbError):
        stored.graph(world.GRAPH).edges  # noqa: B018 (the property raises)


def test_edges_beyond_the_strongest_of_each_node_are_not_sent_and_the_caption_says_how_many(database, within_app, monkeypatch):
    for name, value in {"MAX_PER_NODE": 2, "N_STRONGEST": 4}.items():
        monkeypatch.setattr(pruned, name, value)
    kept = pruned.subgraph(world.SECOND_GRAPH, node_share=1, edge_share=1).edges
    sent = pruned.pruned_graph(world.SECOND_GRAPH, node_share=1, edge_share=1)
    rows = sorted(kept.to_dicts(), key=lambda row: (-row["influence"], row["target_id"], row["source_id"]))
    wanted, out, into = [], {}, {}
    for rank, row in enumerate(rows):
        for counts, end in ((out, row["source_id"]), (into, row["target_id"])):
            counts[end] = counts.get(end, 0) + 1
        if rank < 4 or out[row["source_id"]] <= 2 or into[row["target_id"]] <= 2:
            wanted.append((row["source_id"], row["target_id"]))
    assert list(zip(sent["edges"]["source"], sent["edges"]["target"], strict=True)) == wanted
    assert f"{len(wanted)} of them can be drawn" in sent["caption"] and len(wanted) < kept.height


def test_a_graph_that_is_gone_is_one_clear_error(within_app):
    with pytest.raises(CltdbError, match="no such graph"):
        pruned.pruned_graph("gone-12345678", node_share=0.8, edge_share=0.98)


def test_a_graph_that_vanishes_while_it_is_looked_at_empties_the_drawing(within_app):
    sent, caption = graph_page.prune(0.8, 0.98, "gone-12345678")
    assert "no such graph" in caption == sent["caption"] and sent["kept"] == [] == sent["edges"]["source"]


def test_numbers_are_rounded_to_four_digits():
    assert pruned.rounded(np.array([123456.0, -0.00123456, 0.0, 9.99999])).tolist() == [123500.0, -0.001235, 0.0, 10.0]


@pytest.mark.parametrize(
    "text, label",
    [
        ("names of countries after “capital of”", "names of countries…"),
        ("fires on 'est', 'is' or 'ist' after 'Aqaba'", "est, is or ist…"),
        ("Paris", "Paris"),
        ("x" * 40, "x" * 19 + "…"),
    ],
)
def test_a_label_is_the_beginning_of_an_explanation(text, label):
    node = {"kind": "feature", "text": text, "layer": 1, "feature": 2, "promotes": "is"}
    assert payload.short_label(node) == label and len(label) <= payload.MAX_LABEL_CHARS


def test_without_an_explanation_a_label_is_the_token_that_is_promoted_most(database, within_app):
    effects = {(row["layer"], row["feature"]): row["top_logits"][0]["token"] for row in world.harvest_tables()["features"]}
    nodes = stored.graph(world.GRAPH).nodes.filter(kind="feature")
    assert [world.WORDS[effects[node["layer"], node["feature"]]] for node in nodes.to_dicts()] == nodes["promotes"].to_list()
    node = nodes.to_dicts()[0] | {"text": None}
    assert payload.short_label(node | {"promotes": " Paris"}) == "→ Paris"
    assert payload.short_label(node | {"promotes": "y" * 50}) == "→ " + "y" * 17 + "…"
    assert payload.short_label(node | {"promotes": None}) == f"L{node['layer']} · {node['feature']}"


def test_edges_between_boxes_are_sums_and_shares_of_what_enters_from_outside(database, reading):
    """Against a plain count over all edges of the graph, one target at a time."""
    nodes, edges = whole(database, world.SECOND_GRAPH)
    features = nodes.filter(kind="feature")["node_id"].to_list()
    state = {
        "groups": [
            {"id": "a", "name": "A", "nodes": features[:8]},
            {"id": "b", "name": "B", "nodes": features[4:20]},
            {"id": "c", "name": "C", "nodes": features[4:6]},
        ],
        "pinned": [features[0], features[-1], nodes.height - 1, 99_999],
    }
    found = subgraph.subgraph(stored.graph(world.SECOND_GRAPH), state)
    boxes = {box["key"]: box["nodes"] for box in found["boxes"]}
    last = f"node {nodes.height - 1}"
    assert boxes == {
        "group a": features[:8],
        "group b": features[8:20],
        f"node {features[-1]}": [features[-1]],
        last: [nodes.height - 1],
    }
    rows = edges.select("source_id", "target_id", "weight").rows()
    expected = {}
    for target, members in boxes.items():
        total = {t: sum(abs(w) for _, end, w in rows if end == t) for t in members}
        outside = {t: sum(abs(w) for s, end, w in rows if end == t and s not in members) for t in members}
        counts = {t: outside[t] / total[t] for t in members if total[t]}
        for source in boxes.keys() - {target}:
            inner = [(t, w) for s, t, w in rows if s in boxes[source] and t in members]
            if inner:
                share = sum(w / outside[t] * counts[t] / sum(counts.values()) for t, w in inner)
                expected[source, target] = (sum(w for _, w in inner), share)
    assert {(edge["source"], edge["target"]): (edge["weight"], edge["share"]) for edge in found["edges"]} == {
        pair: pytest.approx(values) for pair, values in expected.items()
    }
    assert len(expected) > 3


@pytest.mark.parametrize("ask", [lambda: graph_page.layout(world.GRAPH), lambda: compare_page.layout(world.GRAPH)])
def test_a_page_of_graphs_waits_for_the_database_once(reading, monkeypatch, ask):
    waits, wait = [], store.place_in_line
    monkeypatch.setattr(store, "place_in_line", lambda path, **how: waits.append(path) or wait(path, **how))
    ask()
    assert len(waits) == 1


def test_edges_are_kept_while_others_write_until_the_graphs_artifact_changes(database, tmp_path, monkeypatch):
    path, asked = shutil.copy(database, tmp_path / "cltdb.duckdb"), []
    read = stored._edges_between
    monkeypatch.setattr(stored, "_edges_between", lambda *given: asked.append(given) or read(*given))
    with client_of(path).application.app_context():
        first = stored.graph(world.GRAPH)
        assert first.edges.height == stored.graph(world.GRAPH).edges.height and len(asked) == 1
        with connect(path, write=True) as connection:
            connection.execute("UPDATE loaded_artifacts SET made_at = made_at")
        os.utime(path)
        again = stored.graph(world.GRAPH)
        assert again is not first and again.edges.equals(first.edges) and len(asked) == 1
        with connect(path, write=True) as connection:
            connection.execute(
                "DELETE FROM edges WHERE graph_id = $1 AND target_id = $2", [world.GRAPH, first.edges["target_id"][0]]
            )
        os.utime(path)
        assert stored.graph(world.GRAPH).edges.height < first.edges.height and len(asked) == 2
