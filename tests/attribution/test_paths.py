"""Paths of whole graphs: all of them sum to what the targets are less biases, and tables of the strongest."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from worlds.numbers import N_LAYERS, PROMPT, dictionary, language_model

import cltdb
from cltdb.attribution.path_tables import path_frames
from cltdb.attribution.settings import Paths
from cltdb.replacement.constant_positions import with_constant
from cltdb.replacement.targets import FeatureTarget

ARCHITECTURES = ["gpt2", "llama", "gemma2"]
FEW = {"n_features": 8, "seed": 3}


def from_biases(graph):
    """The targets' values [n_targets] by biases alone: layer by layer in the frozen model, without embeddings and errors, the active
    features responding with their pre-activations whatever these are."""
    model = graph.replacement
    d, on = model.dictionary, model.activations != 0
    activations = torch.zeros_like(model.activations)
    for layer in range(N_LAYERS + 1):
        decoded = d.decode(activations, torch.zeros_like(model.mlp_inputs))
        sites = with_constant(decoded, model.sites, model.n_constant)
        run = model.run(torch.zeros_like(model.embeddings)[None], sites.transpose(0, 1)[:, None])
        if layer < N_LAYERS:
            activations[:, layer] = d.pre_activations_layer(run.mlp_inputs[layer][0], layer) * on[:, layer]
    if graph.targets.feature:
        layer, position, feature = graph.targets.feature
        return d.pre_activations_layer(run.mlp_inputs[layer][0, position], layer)[feature][None].numpy()
    return graph.targets.values(model, run.final[0, -1], torch.stack([x[0, -1] for x in run.mlp_inputs])).numpy()


def check_sum(graph):
    paths = graph.signed_paths(10**9, max_length=N_LAYERS + 1)
    targets = list(paths)
    sums = [sum(path.weight for path in paths[target]) for target in targets]
    biases = from_biases(graph)
    np.testing.assert_allclose(sums, graph.effects.pre_activations[targets] - biases, atol=1e-8)
    np.testing.assert_allclose([sum(path.share for path in paths[target]) for target in targets], 1, atol=1e-9)
    assert np.abs(biases - graph.effects.biases[targets]).max() > 1e-3  # features below have biases of their own
    assert max(len(path.nodes) for found in paths.values() for path in found) > N_LAYERS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_all_paths_of_a_graph_sum_to_its_targets_less_biases(architecture, kind):
    d = dictionary(kind, skip=kind == "plt", **FEW)
    check_sum(cltdb.attribute(language_model(architecture=architecture), d, PROMPT[:4], max_logits=3))


def test_all_paths_to_a_feature_sum_to_its_pre_activation_less_biases():
    lm, d = language_model(), dictionary("plt", **FEW)
    graph = cltdb.attribute(lm, d, PROMPT[:4])
    active = [graph.index.place(node) for node in range(graph.index.features.stop)]
    layer, position, feature = next(place for place in active if place[:2] == (2, 3))
    graph = cltdb.attribute(lm, d, PROMPT[:4], target=FeatureTarget(layer, feature, position))
    paths = graph.signed_paths(10**9)
    [target] = paths
    expected = graph.effects.pre_activations[target] - from_biases(graph)[0]
    assert sum(path.weight for path in paths[target]) == pytest.approx(expected, abs=1e-8)


def test_features_without_incoming_edges_begin_paths():
    graph = cltdb.attribute(language_model(), dictionary(), PROMPT, max_features=5)
    paths = graph.signed_paths(10**9)
    starts = {path.nodes[0] for found in paths.values() for path in found}
    unknown = {node for node in range(graph.index.features.stop) if not graph.effects.expanded[node]}
    assert unknown & starts and not (set(range(graph.index.features.stop)) - unknown) & starts
    assert not any(set(path.nodes[1:]) & unknown for found in paths.values() for path in found)


def test_in_bfloat16_the_rest_has_what_rounding_leaves():
    graph = cltdb.attribute(language_model(), dictionary(), PROMPT, dtype="bfloat16")
    steps, dense = path_frames(graph, Paths(n=5))["path_steps"], graph.dense()
    sums = steps.group_by("path_id", "source_id", "target_id").agg(
        weight=(pl.col("input_factor") * pl.col("weight_factor")).sum()
    )
    for _, source, target, weight in sums.rows():
        assert weight == pytest.approx(float(dense[target, source]), abs=1e-6)


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_rows_are_the_strongest_paths_and_their_steps_sum_to_the_edges(dtype, tolerance):
    graph = replace(cltdb.attribute(language_model(dtype), dictionary(), PROMPT), graph_id="graph")
    frames = path_frames(graph, Paths(n=15, max_length=3, sign="negative"))
    paths, steps = frames["paths"], frames["path_steps"]
    assert paths["path_id"].to_list() == list(range(paths.height)) and paths["weight"].max() < 0
    assert paths["target_id"].unique().sort().to_list() == list(range(graph.index.logits.start, graph.index.logits.stop))
    for (target,), of_target in paths.group_by("target_id"):
        assert of_target["rank"].to_list() == list(range(1, 16))
        assert of_target["weight"].is_sorted() and of_target["share"].is_sorted(descending=True)
        assert of_target["weight"].to_list() == [
            path.weight for path in graph.signed_paths(15, max_length=3, sign="negative")[target]
        ]
    ends = ["path_id", "step", "source_id", "target_id"]
    products = steps.group_by(ends, maintain_order=True).agg(weight=(pl.col("input_factor") * pl.col("weight_factor")).sum())
    dense = graph.dense()
    activations = graph.feature_activations
    for (path_id,), walked in products.group_by("path_id"):
        weight = 1.0
        for step, (_, number, source, target, sum_of_routes) in enumerate(walked.rows()):
            assert number == step and sum_of_routes == pytest.approx(float(dense[target, source]), abs=tolerance)
            weight *= sum_of_routes / (activations[source] if step else 1)
        assert weight == pytest.approx(paths.filter(path_id=path_id)["weight"].item(), rel=1e-3, abs=tolerance)
        assert walked["target_id"][-1] == paths.filter(path_id=path_id)["target_id"].item() and walked.height <= 3
    assert steps.select("path_id", "step", "via", "source_position").is_unique().all()
    assert steps.filter(via="residual").select(pl.all_horizontal(pl.col("head", "source_position").is_null())).to_series().all()
