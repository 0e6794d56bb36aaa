"""Edges from tokens and positions against the frozen model: an embedding added at one position, with one head's pattern set to 1 there."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from test_feature_edges import NAMED, SETTINGS, dictionary, language_model, read_gradients, sequences
from test_head_edges import FROM, N_HEADS, TO, TOKENS, frozen_scale

from cltdb.harvest.harvest import harvest
from cltdb.harvest.settings import Harvest
from cltdb.replacement.replacement_model import LocalReplacementModel

KEPT = 4


def changes(replacement, layer, head, embeddings):
    """What adding each of `embeddings` [n, d_model] at FROM does to the pre-activations of `layer` at TO [n_features, n], where `head` alone
    attends, from TO to FROM with pattern 1, and norms are frozen."""
    patterns = [torch.zeros_like(pattern) for pattern in replacement.constants.patterns]
    patterns[head[0]][:, head[1], TO, FROM] = 1
    frozen = replace(replacement, constants=replacement.constants._replace(patterns=patterns))
    n = len(embeddings)
    given = replacement.embeddings.repeat(1 + n, 1, 1)
    given[1:, FROM] += embeddings
    with torch.no_grad():
        run = frozen.run(given, replacement.sites.transpose(0, 1)[:, None].repeat(1, 1 + n, 1, 1))
    h = replacement.dictionary.pre_activations_layer(run.mlp_inputs[layer][:, TO], layer)
    return (h[1:] - h[0]).T / frozen_scale(replacement, layer, head)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "gpt_neox"])
def test_the_strongest_tokens_and_positions_are_kept(tmp_path, architecture):
    lm, d, text = language_model(architecture, "normed"), dictionary("clt"), sequences()
    settings = Harvest(**SETTINGS, feature_edges=0, input_edges=KEPT)
    harvest(settings, lm, d, text, directory=tmp_path, **NAMED)
    replacement = LocalReplacementModel.of(lm, d, TOKENS)
    inputs = {"token": lm.embedding(torch.arange(lm.vocab_size))}
    if architecture == "gpt2":
        inputs["position"] = lm.hf.transformer.wpe.weight
    n_checked = 0
    for layer in range(3):
        found = pq.read_table(tmp_path / f"tables/input_edges/layer-{layer:02d}.parquet").to_pylist()
        order = [(row["feature"], row["kind"], row["input"], row["via"] or "~") for row in found]
        assert order == sorted(order) and len(order) == len(set(order))
        dead = pq.read_table(tmp_path / f"tables/features/layer-{layer:02d}.parquet").column("dead").to_pylist()
        heads = [(through, head) for through in range(layer if lm.is_parallel else layer + 1) for head in range(N_HEADS)]
        assert {row["kind"] for row in found} == (set(inputs) if heads else set())
        for kind, embeddings in inputs.items():
            ways = {f"L{through}H{head}": changes(replacement, layer, (through, head), embeddings) for through, head in heads}
            if kind == "position":
                ways[None] = read_gradients(lm, d, layer)[1] @ embeddings.T
            for feature in range(d.n_features):
                of_all = {(i, via): float(V[feature, i]) for via, V in ways.items() for i in range(len(embeddings))}
                expected = {} if dead[feature] else dict(sorted(of_all.items(), key=lambda item: -abs(item[1]))[:KEPT])
                own = {
                    (row["input"], row["via"]): row["virtual_weight"]
                    for row in found
                    if (row["feature"], row["kind"]) == (feature, kind)
                }
                assert own == pytest.approx(expected, rel=1e-5)
                n_checked += len(own)
    assert n_checked > 80
