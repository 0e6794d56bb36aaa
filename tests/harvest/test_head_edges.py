"""Edges through heads against the frozen model: a feature's write added at one position, with one head's pattern set to 1 there."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from test_feature_edges import N_LAYERS, NAMED, SETTINGS, dictionary, language_model, sequences

from cltdb.attribution.graph import attribute
from cltdb.attribution.path_tables import routes_of
from cltdb.harvest.feature_edges import ENDS
from cltdb.harvest.harvest import harvest
from cltdb.harvest.head_edges import pullback
from cltdb.harvest.settings import Harvest
from cltdb.model.freezing import norm_names
from cltdb.replacement.replacement_model import LocalReplacementModel

ARCHITECTURES = ["gpt2", "llama", "gemma2", "gpt_neox"]
TOKENS, FROM, TO = [0, 7, 9, 30, 12], 1, 3
N_HEADS = 4


def changes(replacement, layer, head, source):
    """What adding the write of each feature of layer `source` at FROM does to the pre-activations of `layer` at TO [n_features of the layer,
    n_features], where `head` alone attends, from TO to FROM with pattern 1, and norms are frozen."""
    patterns = [torch.zeros_like(pattern) for pattern in replacement.constants.patterns]
    patterns[head[0]][:, head[1], TO, FROM] = 1
    d = replacement.dictionary
    frozen = replace(replacement, constants=replacement.constants._replace(patterns=patterns))
    sites = replacement.sites.transpose(0, 1)[:, None].repeat(1, 1 + d.n_features, 1, 1)
    for number, target_layer in enumerate(d.target_layers(source)):
        sites[target_layer, 1:, FROM] += d.decoder(source)[:, number]
    run = frozen.run(replacement.embeddings.repeat(1 + d.n_features, 1, 1), sites)
    h = d.pre_activations_layer(run.mlp_inputs[layer][:, TO], layer)
    return (h[1:] - h[0]).T


def frozen_scale(replacement, layer, head):
    """The product of what the norms on the way divide by, as factors: before the head at FROM, after it at TO, before the target at TO."""
    lm, scales = replacement.lm, replacement.constants.scales
    block, names = lm.blocks[head[0]], norm_names(lm)
    found = scales[names[block.attention_norm]][0, FROM, 0]
    if block.attention_output is not block.attention:
        found = found * scales[names[block.attention_output]][0, TO, 0]
    return found * (scales[names[lm.blocks[layer].mlp_norm]][0, TO, 0] if lm.mlp_input == "normed" else 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case,mlp_input", [("clt", "normed"), ("plt", "residual")])
def test_a_pullback_is_what_a_features_write_changes_with_pattern_one_and_frozen_norms(architecture, case, mlp_input):
    lm, d = language_model(architecture, mlp_input), dictionary(case)
    replacement = LocalReplacementModel.of(lm, d, TOKENS)
    n_checked = 0
    for layer, head in ((1, (1, 2)), (2, (1, 1)), (2, (2, 3))):
        if lm.is_parallel and head[0] == layer:
            with pytest.raises(AssertionError):
                pullback(lm, d, layer, slice(None), head=head)
            continue
        found = pullback(lm, d, layer, slice(None), head=head)
        assert list(found) == list(range(head[0]))
        for source, weights in found.items():
            with torch.no_grad():
                expected = changes(replacement, layer, head, source) / frozen_scale(replacement, layer, head)
            torch.testing.assert_close(weights, expected, rtol=0, atol=1e-8)
            n_checked += int((weights.abs() > 1e-3).sum())
    assert n_checked > 100


def rows(directory):
    return [
        row for path in sorted((directory / "tables/feature_edges").glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama"])
def test_the_strongest_edges_through_heads_are_kept_beside_those_along_the_residual_stream(tmp_path, architecture, monkeypatch):
    monkeypatch.setattr("cltdb.harvest.feature_edges.BLOCK_PAIRS", 30)
    lm, d, text = language_model(architecture, "normed"), dictionary("clt"), sequences()
    settings = Harvest(**SETTINGS, feature_edges=3, coactivation_tokens=30)
    harvest(settings, lm, d, text, directory=tmp_path / "direct", **NAMED)
    harvest(settings.model_copy(update={"head_edges": 5}), lm, d, text, directory=tmp_path / "both", **NAMED)
    found = rows(tmp_path / "both")
    assert [row | {"via": None} for row in rows(tmp_path / "direct")] == [row for row in found if row["via"] is None]
    live = {
        (row["layer"], row["feature"])
        for path in (tmp_path / "both/tables/features").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
        if not row["dead"]
    }
    expected = {}
    for layer, feature in live:
        candidates = {
            (source, i, layer, feature, f"L{through}H{head}"): float(weights[0, i])
            for through in range(layer if lm.is_parallel else layer + 1)
            for head in range(N_HEADS)
            for source, weights in pullback(lm, d, layer, [feature], head=(through, head)).items()
            for i in range(d.n_features)
            if (source, i) in live
        }
        expected |= dict(sorted(candidates.items(), key=lambda item: -abs(item[1]))[:5])
    through_heads = {(*(row[name] for name in ENDS), row["via"]): row for row in found if row["via"] is not None}
    assert through_heads.keys() == expected.keys() and len({via for *_, via in expected}) >= N_HEADS
    for key, row in through_heads.items():
        assert row["virtual_weight"] == pytest.approx(expected[key], rel=1e-5)
        assert row["era"] is row["twera"] is row["coactivation"] is None
    order = [(*(row[name] for name in ENDS), row["via"] or "~") for row in found]
    assert order == sorted(order)


def test_edges_through_heads_alone_and_where_nothing_fires(tmp_path):
    lm, d, text = language_model("gpt2", "normed"), dictionary("clt"), sequences()
    settings = Harvest(**SETTINGS, feature_edges=0, head_edges=2, coactivation_tokens=30)
    harvest(settings, lm, d, text, directory=tmp_path / "alone", **NAMED)
    assert rows(tmp_path / "alone") and all(row["via"] for row in rows(tmp_path / "alone"))
    d.threshold = torch.full_like(d.threshold, 1e9)
    harvest(settings, lm, d, text, directory=tmp_path / "silent", **NAMED)
    assert rows(tmp_path / "silent") == []


def test_the_weights_are_those_of_the_steps_of_paths():
    """An edge of a graph through one head has the pullback as its factor of weights."""
    lm, d = language_model("gemma2", "normed"), dictionary("clt")
    graph = attribute(lm, d, TOKENS)
    index, n_checked = graph.index, 0
    dense = graph.dense()
    targets = [node for node in range(index.features.stop) if index.place(node)[0] == N_LAYERS - 1][::3]
    edges = [(s, t) for t in targets for s in range(0, index.features.stop, 4) if dense[t, s]]
    for (source, target), routes in routes_of(graph, edges).items():
        (layer, _, feature), (source_layer, _, i) = index.place(target), index.place(source)
        for route in routes:
            if route.head == route.via and route.head is not None:
                head = tuple(int(number) for number in route.head[1:].split("H"))
                weight = pullback(lm, d, layer, [feature], head=head)[source_layer][0, i]
                assert route.weight_factor == pytest.approx(float(weight), abs=1e-10)
                n_checked += 1
    assert n_checked > 20
