"""Pruning what is stored gives what pruning the graph itself gives."""

import pytest
from worlds.numbers import PROMPT, dictionary, language_model

from cltdb.attribution.graph import attribute
from cltdb.graphs.stored_graph import prune_stored


@pytest.mark.parametrize("thresholds", [(0.8, 0.98), (0.5, 0.9), (0.95, 0.6), (1.0, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize("max_features", [None, 40])
def test_nodes_edges_and_scores_are_those_of_the_whole_graph(thresholds, max_features):
    graph = attribute(language_model(), dictionary(), PROMPT, max_features=max_features)
    expected = graph.prune(*thresholds)
    found = prune_stored(graph.nodes, graph.edges, node_threshold=thresholds[0], edge_threshold=thresholds[1])
    assert found.nodes["node_id"].to_list() == expected.nodes["node_id"].to_list()
    ends = ("source_id", "target_id", "weight", "influence")
    assert found.edges.select(ends).equals(expected.edges.select(ends))
    assert found.scores.replacement == pytest.approx(expected.replacement_score)
    assert found.scores.completeness == pytest.approx(expected.completeness_score)


def test_a_graph_without_influence_says_so_as_it_is_pruned(caplog):
    graph = attribute(language_model(), dictionary(), PROMPT)
    inner = graph.edges.filter(
        ~graph.edges["target_id"].is_in(graph.nodes.filter(graph.nodes["kind"] == "logit")["node_id"].implode())
    )
    nodes = graph.nodes.with_columns(influence=None)
    kept = [prune_stored(nodes, inner, node_threshold=share, edge_threshold=share).nodes for share in (0.1, 0.5, 1.0)]
    assert kept[0].equals(kept[1]) and kept[1].equals(kept[2]) and len(caplog.messages) == 3
    assert caplog.messages[-1].startswith("no node of the graph has influence")


def test_weak_edges_without_rows_change_little():
    """Of the nodes nothing; of the edges and scores what the dropped ones weigh."""
    whole = attribute(language_model(), dictionary(), PROMPT)
    part = attribute(language_model(), dictionary(), PROMPT, edge_threshold=1e-3)
    assert part.edges.height < whole.edges.height
    found = prune_stored(part.nodes, part.edges, node_threshold=0.7, edge_threshold=0.9)
    expected = whole.prune(0.7, 0.9)
    assert abs(found.nodes.height - expected.nodes.height) <= 2
    assert found.scores.completeness == pytest.approx(expected.completeness_score, abs=0.01)
    assert found.scores.replacement == pytest.approx(expected.replacement_score, abs=0.01)
