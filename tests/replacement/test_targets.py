"""What a graph can explain: tokens, features and directions, at any position; each against another way to the same numbers."""

import polars as pl
import pytest
import torch
from worlds.numbers import D_MODEL, PROMPT, dictionary, language_model

from cltdb.attribution.graph import attribute, check_edges
from cltdb.errors import CltdbError
from cltdb.graphs.stored_graph import prune_stored
from cltdb.replacement.targets import DirectionTarget, FeatureTarget


def incoming(graph, node):
    """{(kind, layer, position, feature): weight} of the edges into a node."""
    sources = graph.edges.filter(target_id=node).join(graph.nodes, left_on="source_id", right_on="node_id")
    return {tuple(row[:4]): row[4] for row in sources.select("kind", "layer", "position", "feature", "weight").iter_rows()}


def node_of(graph, **place):
    return graph.nodes.filter(**place)["node_id"].item()


def active_feature(graph, layer):
    """The place of the most active feature of a layer that is not at the end of the prompt."""
    features = graph.nodes.filter(pl.col("kind") == "feature", pl.col("layer") == layer, pl.col("position") < len(PROMPT) - 1)
    layer, feature, position = features.sort("activation").select("layer", "feature", "position").row(-1)
    return FeatureTarget(layer, feature, position)


@pytest.mark.parametrize("kind,skip", [("clt", False), ("clt", True), ("plt", True)])
def test_a_feature_has_the_edges_it_has_in_the_whole_graph(kind, skip):
    lm, d = language_model(), dictionary(kind, skip=skip)
    whole = attribute(lm, d, PROMPT)
    target = active_feature(whole, layer=2)
    part = attribute(lm, d, PROMPT, target=target)
    place = {"kind": "feature", **target._asdict()}
    expected, found = incoming(whole, node_of(whole, **place)), incoming(part, node_of(part, **place))
    assert expected.keys() == found.keys()
    assert [found[key] for key in expected] == pytest.approx(list(expected.values()), abs=1e-10)
    assert part.nodes.filter(kind="logit").height == 0
    assert part.nodes.filter(pl.col("layer") >= 2, pl.col("kind") == "feature").height == 1
    assert part.nodes.filter(probability=1).select("layer", "feature", "position").row(0) == tuple(target)
    checked = check_edges(part, n=40, seed=0).edges.drop_nulls("measured")
    assert checked.height == 40 and checked.select((pl.col("weight") - pl.col("measured")).abs().max()).item() < 1e-8


def test_the_influence_on_a_feature_is_that_of_the_matrix_inverse():
    lm, d = language_model(), dictionary()
    target = active_feature(attribute(lm, d, PROMPT), layer=1)
    graph = attribute(lm, d, PROMPT, target=target)
    A = graph.dense().abs()
    S = A / A.sum(1, keepdim=True).clamp(min=1e-10)
    w = torch.zeros(len(A), dtype=torch.float64)
    w[node_of(graph, kind="feature", **target._asdict())] = 1
    B = torch.linalg.inv(torch.eye(len(A), dtype=torch.float64) - S) - torch.eye(len(A), dtype=torch.float64)
    torch.testing.assert_close(torch.from_numpy(graph.influence), w @ B, rtol=0, atol=1e-12)
    pruned = graph.prune(0.7, 0.9)
    assert pruned.nodes.filter(probability=1).height == 1, "the target itself is never pruned"
    stored = prune_stored(graph.nodes, graph.edges, node_threshold=0.7, edge_threshold=0.9)
    assert stored.nodes["node_id"].to_list() == pruned.nodes["node_id"].to_list()
    assert stored.scores.completeness == pytest.approx(pruned.completeness_score)


def test_max_features_counts_the_target_as_one():
    lm, d = language_model(), dictionary()
    target = active_feature(attribute(lm, d, PROMPT), layer=2)
    graph = attribute(lm, d, PROMPT, target=target, max_features=5)
    assert graph.nodes.filter(pl.col("kind") == "feature", pl.col("expanded")).height == 5


def test_at_an_earlier_position_it_is_the_graph_of_the_prompt_up_to_there():
    lm, d = language_model(), dictionary()
    found, expected = attribute(lm, d, PROMPT, position=-3), attribute(lm, d, PROMPT[:5])
    assert found.nodes.equals(expected.nodes) and found.edges.equals(expected.edges)


def test_several_tokens_stand_by_falling_probability():
    graph = attribute(language_model(), dictionary(), PROMPT, target=[4, 9, 30])
    logits = graph.nodes.filter(kind="logit")
    assert sorted(logits["token"]) == [4, 9, 30]
    assert logits["probability"].is_sorted(descending=True)


def test_weighted_tokens_have_the_edges_they_have_alone_and_their_weights_in_influence():
    lm, d = language_model(), dictionary()
    graph = attribute(lm, d, PROMPT, target={4: 1, "9": 6, 30: 3.0})
    logits = graph.nodes.filter(kind="logit")
    assert dict(logits.select("token", "probability").iter_rows()) == pytest.approx({9: 0.6, 30: 0.3, 4: 0.1})
    assert logits["token"].to_list() == [9, 30, 4]  # by falling weight, whatever the model's probabilities are
    alone, influence = {token: attribute(lm, d, PROMPT, target=token) for token in (4, 9, 30)}, 0
    for (token, weight, node), (other, one) in (
        (row, (row[0], alone[row[0]])) for row in logits.select("token", "probability", "node_id").rows()
    ):
        assert token == other and incoming(graph, node) == pytest.approx(incoming(one, node_of(one, kind="logit")))
        influence = influence + weight * one.influence[: one.index.embeddings.stop] / float(one.targets.weights)
    assert graph.influence[: graph.index.embeddings.stop] == pytest.approx(influence, rel=1e-10, abs=1e-13)
    checked = check_edges(graph, n=30, seed=0).edges.drop_nulls("measured")
    assert checked.select((pl.col("weight") - pl.col("measured")).abs().max()).item() < 1e-8
    doubled = attribute(lm, d, PROMPT, target={4: 2, 9: 12, 30: 6})
    assert doubled.nodes.equals(graph.nodes), "weights are relative"


def test_a_direction_that_is_a_tokens_has_the_tokens_edges():
    lm, d = language_model(), dictionary()
    W_U = lm.unembedding_weight()
    token = attribute(lm, d, PROMPT, target=7)
    direction = attribute(lm, d, PROMPT, target=DirectionTarget((W_U[7] - W_U.mean(0)).tolist()))
    ends = [node_of(graph, kind="logit") for graph in (token, direction)]
    assert incoming(token, ends[0]) == pytest.approx(incoming(direction, ends[1]))
    assert direction.nodes.filter(kind="logit").select("token", "probability").row(0) == (None, 1.0)


def test_a_direction_that_is_an_encoders_has_the_features_edges():
    lm, d = language_model(), dictionary()
    target = active_feature(attribute(lm, d, PROMPT), layer=1)
    feature = attribute(lm, d, PROMPT, target=target)
    vector = d.W_enc[target.layer, target.feature]
    direction = attribute(lm, d, PROMPT, target=DirectionTarget(vector, target.layer), position=target.position)
    found = incoming(direction, node_of(direction, kind="logit"))
    assert found == pytest.approx(incoming(feature, node_of(feature, kind="feature", **target._asdict())))
    end = direction.nodes.filter(kind="logit")
    assert end["pre_activation"].item() - end["bias"].item() == pytest.approx(sum(found.values()))
    checked = check_edges(direction, n=30, seed=0).edges.drop_nulls("measured")
    assert checked.select((pl.col("weight") - pl.col("measured")).abs().max()).item() < 1e-8


@pytest.mark.parametrize(
    "options,where,found",
    [
        ({"target": []}, "attribute target", r"tokens \[\]"),
        ({"target": [3, 3]}, "attribute target", r"tokens \[3, 3\]"),
        ({"target": [3, "3"]}, "attribute target", r"whose ids are \[3, 3\]"),
        ({"target": 3, "foil": "3"}, "attribute foil", "the target itself"),
        ({"target": [3, 4], "foil": 5}, "attribute foil", r"\[3, 4\]"),
        ({"foil": 5}, "attribute foil", "None"),
        ({"target": {}}, "attribute target", r"tokens \[\]"),
        ({"target": {3: 1, "3": 2}}, "attribute target", r"whose ids are \[3, 3\]"),
        ({"target": {3: 1, 4: 0}}, "attribute target", "the weight 0 of 4"),
        ({"target": {3: -1.5}}, "attribute target", "the weight -1.5 of 3"),
        ({"target": {3: float("nan")}}, "attribute target", "the weight nan of 3"),
        ({"target": {3: 1}, "foil": 5}, "attribute foil", r"\{3: 1\}"),
        ({"position": 0}, "attribute position", "0"),
        ({"position": 7}, "attribute position", "7"),
        ({"target": FeatureTarget(1, 0), "position": 3}, "attribute position", "3 beside a FeatureTarget"),
        ({"max_edges": -5}, "attribute.max_edges", "-5"),
        ({"max_logits": 0}, "attribute.max_logits", "0"),
        ({"target": FeatureTarget(3, 0)}, "feature 3:0", "no such feature"),
        ({"target": DirectionTarget([1.0, 2.0])}, "direction", r"shape \[2\]"),
        ({"target": DirectionTarget([float("nan")] * D_MODEL)}, "direction", "not finite"),
        ({"target": DirectionTarget([1.0] * D_MODEL, layer=3)}, "direction", "layer 3"),
    ],
)
def test_bad_targets_are_one_clear_error(options, where, found):
    with pytest.raises(CltdbError, match=found) as error:
        attribute(language_model(), dictionary(), PROMPT, **options)
    assert where in str(error.value)


def test_a_feature_that_is_silent_is_named():
    lm, d = language_model(), dictionary()
    graph = attribute(lm, d, PROMPT)
    there = set(graph.nodes.filter(kind="feature", layer=1, position=6)["feature"])
    silent = next(feature for feature in range(d.n_features) if feature not in there)
    with pytest.raises(CltdbError, match="not active at position 6"):
        attribute(lm, d, PROMPT, target=FeatureTarget(1, silent))
