"""Groups of features: the similarities and the linkage against slow twins, planted groups, and what the stage stores."""

import numpy as np
import polars as pl
import pytest
import torch
from worlds.numbers import N_LAYERS, PROMPT, dictionary, language_model

import cltdb
from cltdb.attribution.tables import promoted_token
from cltdb.graphs.supernodes import (
    average_linkage,
    decoder_similarity,
    group_features,
    supernode_rows,
    text_similarity,
)
from cltdb.model.norms import norm_gain

N_COPIES = 3


def slow_linkage(similarity, threshold):
    """The definition: every mean over pairs anew after every step."""
    groups = [[member] for member in range(len(similarity))]
    while len(groups) > 1:
        means = {
            (one, other): np.mean([similarity[a, b] for a in groups[one] for b in groups[other]])
            for other in range(len(groups))
            for one in range(other)
        }
        one, other = max(means, key=means.get)
        if means[one, other] < threshold:
            break
        groups[one] = sorted(groups[one] + groups.pop(other))
    return sorted(groups)


@pytest.mark.parametrize("n", [0, 1, 2, 17, 40])
@pytest.mark.parametrize("threshold", [0.0, 0.45, 0.6, 1.0])
def test_linkage_is_that_of_the_definition(n, threshold):
    draw = np.random.default_rng(n).random((n, n))
    similarity = (draw + draw.T) / 2
    assert sorted(average_linkage(similarity, threshold)) == slow_linkage(similarity, threshold)


def test_linkage_of_thousands_is_quick():
    vectors = np.random.default_rng(0).normal(size=(2000, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = average_linkage(vectors @ vectors.T, 0.5)
    assert sorted(member for group in groups for member in group) == list(range(2000)) and 20 < len(groups) < 500


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_decoders_are_compared_over_the_layers_both_write_to(kind):
    features = [(0, 3), (0, 7), (1, 3), (2, 5), (2, 6)]
    found, world = decoder_similarity(dictionary(kind), *zip(*features, strict=True)), dictionary(kind)
    for row, (layer, feature) in enumerate(features):
        for column, (other, another) in enumerate(features):
            common = [target for target in world.target_layers(layer) if target in world.target_layers(other)]
            one, two = (
                sum(world.W_dec[source][which][target - source] for target in (common or world.target_layers(source)))
                for source, which in ((layer, feature), (other, another))
            )
            assert found[row, column] == pytest.approx(float(torch.nn.functional.cosine_similarity(one, two, dim=0)))


def test_texts_are_compared_by_their_words():
    same, near, far, none, empty = "fires on 'Paris'", "Fires on Paris, London", "negation", None, ""
    found = text_similarity([same, same.upper(), near, far, none, empty])
    assert found[0, 1] == pytest.approx(1) and 0.4 < found[0, 2] < 1 and found[0, 3] == 0
    assert np.isnan(found[4:]).all() and np.isnan(found[:, 4:]).all()


def planted(seed=3):
    """A dictionary in which features 10 to 12 of layer 0 are nearly feature 9, and 20 to 22 of layer 1 nearly feature 19: encoders,
    biases, thresholds and decoders, so that they fire together, read the same and write the same."""
    world, generator = dictionary(seed=seed), torch.Generator().manual_seed(seed)
    for layer, first in ((0, 9), (1, 19)):
        copies = slice(first + 1, first + 1 + N_COPIES)
        world.b_enc[layer, first] = 4.0  # active everywhere
        for tensor in (world.W_enc[layer], world.b_enc[layer], world.threshold[layer], world.W_dec[layer]):
            noise = torch.randn(tensor[copies].shape, generator=generator, dtype=tensor.dtype)
            tensor[copies] = tensor[first] * (1 + 0.02 * noise)
    return world


@pytest.fixture(scope="module")
def graph():
    return cltdb.attribute(language_model(), planted(), PROMPT)


def features_of(graph, group):
    return {(int(graph.index.feature_layer[node]), int(graph.index.feature[node])) for node in group}


def test_planted_copies_are_the_groups(graph):
    pruned = graph.prune(1.0, 1.0)
    groups = group_features(pruned.nodes, pruned.edges, similarity=0.95, dictionary=graph.replacement.dictionary)
    expected = [{(layer, first + i) for i in range(N_COPIES + 1)} for layer, first in ((0, 9), (1, 19))]
    found = [features_of(graph, group) for group in groups]
    for copies in expected:
        assert found.count(copies) == len(PROMPT) - 1  # once at each position
    assert len(found) == 2 * (len(PROMPT) - 1)
    influence = [float(graph.influence[group].sum()) for group in groups]
    assert influence == sorted(influence, reverse=True)


def test_groups_are_disjoint_kept_and_at_one_position(graph):
    pruned = graph.prune(0.9, 0.99)
    groups = group_features(pruned.nodes, pruned.edges, similarity=0.3, dictionary=graph.replacement.dictionary)
    members = [node for group in groups for node in group]
    assert len(groups) > 3 and len(members) == len(set(members)) and min(map(len, groups)) > 1
    kept, features = set(pruned.nodes.filter(kind="feature")["node_id"]), graph.nodes.filter(kind="feature")
    assert set(members) < kept and len(kept) < features.height
    assert all(len(set(graph.index.feature_position[group].tolist())) == 1 for group in groups)


def test_over_positions_a_feature_meets_itself(graph):
    pruned = graph.prune(1.0, 1.0)
    nodes = pruned.nodes.filter(pl.col("kind").ne("feature") | pl.col("layer").eq(1) & pl.col("feature").is_in([19, 20]))
    options = {"similarity": 0.3, "dictionary": graph.replacement.dictionary}
    apart, together = (group_features(nodes, pruned.edges, **options, same_position=same) for same in (True, False))
    assert max(map(len, together)) > max(map(len, apart)) == 2


def test_explanations_bring_together_and_keep_apart(graph):
    pruned = graph.prune(1.0, 1.0)
    texts = ["a b c" if feature == 9 else "d e f" for feature in pruned.nodes["feature"]]
    nodes = pruned.nodes.with_columns(text=pl.Series(texts))
    groups = group_features(nodes, pruned.edges, similarity=0.5, dictionary=graph.replacement.dictionary)
    assert groups and not any((0, 9) in features_of(graph, group) for group in groups)


def test_a_feature_that_is_explained_is_in_no_group():
    target = cltdb.FeatureTarget(1, 19)
    graph = cltdb.attribute(language_model(), planted(), PROMPT, target=target)
    pruned = graph.prune(1.0, 1.0)
    groups = group_features(pruned.nodes, pruned.edges, similarity=0.0)
    explained = graph.index.feature_at(1, len(PROMPT) - 1, 19)
    assert groups and all(explained not in group for group in groups)


def test_names(graph):
    """The token of the largest direct effect, with decoders summed one by one."""
    lm, world = graph.replacement.lm, graph.replacement.dictionary
    group = np.flatnonzero(graph.index.feature_position == 3)[:3].tolist()
    written = sum(
        float(graph.feature_activations[node]) * world.W_dec[layer][feature, target]
        for node in group
        for layer, _, feature in [graph.index.place(node)]
        for target in range(N_LAYERS - layer)
    )
    effects = lm.unembedding_weight() @ (norm_gain(lm.final_norm) * written)
    assert promoted_token(graph, group) == int(effects.argmax())
    words = [f" w{token}" for token in PROMPT]
    rows = supernode_rows("g", [group, group], graph.nodes, labels=["Paris", None], words=words)
    long = supernode_rows("g", [group], graph.nodes, labels=["fires on " * 20], words=words)["name"].item()
    assert long.startswith("fires on fires") and long.endswith("… (w19@3)") and len(long) < 80
    assert rows["name"].to_list() == ["Paris (w19@3)", "w19@3"] and rows["supernode_id"].to_list() == ["g-s0", "g-s1"]
