"""Input-independent edges and de-embedding against slow twins: the model's own forward pass with norms' scales 1 and attention that looks
nowhere, differentiated; sums over dense activations."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from worlds import dictionaries, models
from worlds.device import DEVICE

from cltdb.activations.tokens import Sequences
from cltdb.harvest import feature_edges as module
from cltdb.harvest.coactivation import choose_tokens
from cltdb.harvest.harvest import harvest
from cltdb.harvest.parts import FOLDER
from cltdb.harvest.settings import Harvest
from cltdb.model.language_model import LanguageModel
from cltdb.replacement.replacement_model import LocalReplacementModel
from cltdb.train.chosen_layers import spread
from cltdb.train.trained import computing_for

N_LAYERS = 3
NAMED = dict(dict_id="d", seed=5)
SETTINGS = dict(top=2, per_quantile=1, n_quantiles=2, window=6, pool_windows=5, batch_seqs=3)
ALL = Harvest(**SETTINGS, feature_edges=10_000, coactivation_tokens=10_000)
FEW = Harvest(**SETTINGS, feature_edges=3, coactivation_tokens=30)


def language_model(architecture, mlp_input):
    """In float64, with norms whose gains and biases are not 1 and 0."""
    torch.manual_seed(1)
    hf = models.hf_model(architecture, n_layers=N_LAYERS, dtype=torch.float64)
    for parameter in hf.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return LanguageModel(hf, models.byte_tokenizer(), model_id=architecture, mlp_input=mlp_input)


def sequences(n_seqs=8, context=16):
    tokens = np.random.default_rng(0).integers(1, 257, (n_seqs, context)).astype(np.int32)
    tokens[:, 0] = tokens[::2, 5] = tokens[3, 6:] = 0  # BOS, also within sequences
    documents = np.repeat(np.arange(n_seqs), context).reshape(n_seqs, context)
    return Sequences(tokens, documents, np.full((n_seqs, context), -1, dtype=np.int16), [], (0,))


def shorter(dictionary, span):
    """What a training with this decoder_span leaves: nothing is written to later layers."""
    for W in dictionary.W_dec:
        W[:, span:] = 0
    return dictionary


def dictionary(case):
    if case == "layers 0 and 2":
        return spread(dictionaries.random(n_layers=2), [0, 2], n_layers=N_LAYERS)
    made = dictionaries.random(n_layers=N_LAYERS, kind="plt" if case == "plt" else "clt")
    return shorter(made, 1) if case == "decoder_span 1" else made


def rows(directory, table):
    return [row for path in sorted((directory / "tables" / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def edges(directory):
    """{(source layer, source feature, target layer, target feature): [virtual weight, era, twera, coactivation]}"""
    found = rows(directory, "feature_edges")
    ends = [tuple(row[f"{end}_{name}"] for end in ("source", "target") for name in ("layer", "feature")) for row in found]
    assert ends == sorted(set(ends))
    return {end: [row[name] for name in module.Weights._fields] for end, row in zip(ends, found, strict=True)}


def read_gradients(lm, dictionary, layer):
    """Gradients of the layer's pre-activations along the direct path, at MLP outputs [n_layers, n_features, d_model] and at the embedding
    [n_features, d_model]."""
    replacement = LocalReplacementModel.of(lm, dictionary, [0, 7, 9])
    constants = replacement.constants
    direct = constants._replace(
        patterns=[torch.zeros_like(pattern) for pattern in constants.patterns],
        scales={name: torch.ones_like(scale) for name, scale in constants.scales.items()},
    )
    n_features = dictionary.n_features
    embeddings = replacement.embeddings.repeat(n_features, 1, 1).requires_grad_()
    sites = replacement.sites.transpose(0, 1)[:, None].repeat(1, n_features, 1, 1).requires_grad_()
    read = replace(replacement, constants=direct).run(embeddings, sites).mlp_inputs[layer][:, 2]
    of_each = dictionary.pre_activations_layer(read, layer).diagonal().sum()
    at_embeddings, at_sites = torch.autograd.grad(of_each, [embeddings, sites], materialize_grads=True)
    return at_sites[:, :, 2], at_embeddings[:, 2]


def slow_virtual_weight(gradients, dictionary, source, target_feature):
    """[n_features] of the source layer."""
    written = zip(dictionary.target_layers(source), dictionary.W_dec[source].unbind(1), strict=True)
    return sum(W @ gradients[layer, target_feature] for layer, W in written)


def slow_edges(lm, dictionary, text, counted):
    """As `edges`, of every pair of features that fire in the text."""
    a = dictionary.encode(lm.run(torch.from_numpy(text.tokens).long()).mlp_input)
    a[:, 0] = 0
    a = a.flatten(0, 1)
    live, a = (a > 0).any(0), a[counted]
    found = {}
    for target in range(N_LAYERS):
        gradients, _ = read_gradients(lm, dictionary, target)
        for source in range(target):
            for j in live[target].nonzero().flatten().tolist():
                V = slow_virtual_weight(gradients, dictionary, source, j)
                for i in live[source].nonzero().flatten().tolist():
                    a_i, a_j = a[:, source, i], a[:, target, j]
                    era = ((a_j > 0) * a_i).mean() * V[i]
                    twera = (a_j * a_i).mean() / a_j.mean() * V[i] if a_j.any() else V[i] * 0
                    both = ((a_j > 0) & (a_i > 0)).double().mean()
                    if V[i] != 0:
                        found[source, i, target, j] = [float(x) for x in (V[i], era, twera, both)]
    return found


def assert_same_edges(found, expected):
    assert set(found) == set(expected)
    assert np.allclose([found[key] for key in found], [expected[key] for key in found], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "mlp_input", "case"),
    [
        *((architecture, "normed", "clt") for architecture in models.ARCHITECTURES),
        *((architecture, "residual", "clt") for architecture in ("gpt2", "gemma2")),
        *(("gpt2", "normed", case) for case in ("plt", "decoder_span 1", "layers 0 and 2")),
    ],
)
def test_edges_and_embeddings_equal_those_of_the_slow_twin(tmp_path, architecture, mlp_input, case):
    lm, d, text = language_model(architecture, mlp_input), dictionary(case), sequences()
    harvest(ALL, lm, d, text, directory=tmp_path, **NAMED)
    counted = choose_tokens(text, n_tokens=10_000, seed=0)
    assert len(counted) == 8 * 15 - 4 - 10 and (text.tokens.ravel()[counted] > 0).all()
    expected = slow_edges(lm, d, text, counted)
    assert len(expected) > 100 and sum(twera < 0 for _, _, twera, _ in expected.values()) > 20
    assert_same_edges(edges(tmp_path), expected)
    E = lm.embedding(torch.arange(lm.vocab_size))
    effects = torch.stack([read_gradients(lm, d, layer)[1] for layer in range(N_LAYERS)]) @ E.T
    for row in rows(tmp_path, "features"):
        effect = effects[row["layer"], row["feature"]]
        for column, order in (("top_embeddings", effect.argsort(descending=True)), ("bottom_embeddings", effect.argsort())):
            values = [entry["value"] for entry in row[column]]
            assert np.allclose(values, effect[order[:10]], rtol=1e-4, atol=1e-5)
            assert np.allclose(effect[[entry["token"] for entry in row[column]]], values, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def world():
    return language_model("gpt2", "normed"), dictionary("clt"), sequences()


def test_the_strongest_of_each_feature_are_kept(world, tmp_path):
    """Those by |TWERA| and half as many by |V|, incoming and outgoing, from a sample of the tokens; blocks make no difference."""
    counted = choose_tokens(world[2], n_tokens=30, seed=NAMED["seed"])
    assert len(counted) == len(set(counted)) == 30 and (world[2].tokens.ravel()[counted] > 0).all()
    every, expected = slow_edges(*world, counted), set()
    for end in (slice(0, 2), slice(2, 4)):
        for feature in {key[end] for key in every}:
            for measure, n in ((2, 3), (0, 2)):
                of_feature = [key for key in every if key[end] == feature and every[key][measure] != 0]
                expected |= set(sorted(of_feature, key=lambda key: -abs(every[key][measure]))[:n])
    harvest(FEW, *world, directory=tmp_path, **NAMED)
    assert len(expected) < len(every)
    assert_same_edges(edges(tmp_path), {key: every[key] for key in expected})
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize(("batch_seqs", "block_pairs"), [(1, 1), (8, 50)])
def test_neither_batches_nor_blocks_make_a_difference(world, tmp_path, monkeypatch, batch_seqs, block_pairs):
    harvest(FEW, *world, directory=tmp_path / "whole", **NAMED)
    monkeypatch.setattr(module, "BLOCK_PAIRS", block_pairs)
    harvest(FEW.model_copy(update={"batch_seqs": batch_seqs}), *world, directory=tmp_path / "parts", **NAMED)
    assert_same_edges(edges(tmp_path / "parts"), edges(tmp_path / "whole"))


def test_none_are_made_where_none_are_wanted_or_nothing_fires(world, tmp_path):
    lm, d, text = world
    harvest(FEW.model_copy(update={"feature_edges": 0}), lm, d, text, directory=tmp_path / "none", **NAMED)
    assert not (tmp_path / "none/tables/feature_edges").exists()
    silent = d.to(dtype=torch.float64)
    silent.threshold = torch.full_like(silent.threshold, 1e9)
    harvest(ALL, lm, silent, text, directory=tmp_path / "silent", **NAMED)
    assert edges(tmp_path / "silent") == {} and len(list((tmp_path / "silent/tables/feature_edges").iterdir())) == N_LAYERS


@pytest.mark.parametrize(
    ("architecture", "stored", "computing"),
    [
        ("gpt2", torch.bfloat16, torch.float32),
        ("gemma2", torch.bfloat16, torch.bfloat16),  # as on a GPU
        ("gpt2", torch.float8_e5m2, None),
    ],
)
def test_what_weights_say_has_the_digits_of_the_stored_numbers(tmp_path, architecture, stored, computing):
    """A model in bfloat16 and a dictionary of few bits beside the same numbers in float64. computing: in what the dictionary computes, None: as in a
    run."""
    settings = ALL.model_copy(update={"head_edges": 5, "input_edges": 5, "lens_tokens": "[a-c]"})
    d, hf = dictionary("clt").to(dtype=torch.bfloat16), language_model(architecture, "normed").hf.bfloat16()
    d.W_enc, d.W_dec = d.W_enc.to(stored), [W.to(stored) for W in d.W_dec]
    d.dtype = stored
    lm = LanguageModel(hf, models.byte_tokenizer(), model_id=architecture)
    narrow = d.computing(dtype=computing) if computing else computing_for(lm, d)
    harvest(settings, lm, narrow, sequences(), directory=tmp_path / "narrow", **NAMED)
    hf.double()
    harvest(settings, lm, d.to(dtype=torch.float64), sequences(), directory=tmp_path / "wide", **NAMED)
    narrow, wide = said_by_weights(tmp_path / "narrow"), said_by_weights(tmp_path / "wide")
    common = narrow.keys() & wide.keys()
    assert {table for table, *_ in common} == {"features", "feature_edges", "input_edges"} and len(common) > 500
    for key in common:
        assert np.allclose(narrow[key], wide[key], rtol=1e-5, atol=1e-5), key


def said_by_weights(directory):
    """{(table, key of its row, column): what comes from weights alone}"""
    ends = ("source_layer", "source_feature", "target_layer", "target_feature", "via")
    found = {
        (table, *(row[name] for name in key), column): row[column]
        for table, key, columns in (
            ("features", ("layer", "feature"), ("encoder_norm", "decoder_norms")),
            ("feature_edges", ends, ("virtual_weight",)),
            ("input_edges", ("layer", "feature", "kind", "input", "via"), ("virtual_weight",)),
        )
        for row in rows(directory, table)
        for column in columns
    }
    for row in rows(directory, "features"):
        for column in ("top_logits", "bottom_logits", "top_embeddings", "bottom_embeddings", "lens_logits"):
            found["features", row["layer"], row["feature"], column] = [one["value"] for one in row[column]]
    return found


@pytest.mark.gpu
@pytest.mark.filterwarnings("error:Sparse")
def test_a_gpu_finds_the_same(world, tmp_path):
    lm, d, text = world
    silent = d.to(dtype=torch.float64)
    silent.threshold[1] = 1e9
    for name, made in (("all", d), ("one layer silent", silent)):
        harvest(ALL, lm, made, text, directory=tmp_path / name / "cpu", **NAMED)
        lm.hf.to(DEVICE)
        harvest(ALL, lm, made.to(device=DEVICE), text, directory=tmp_path / name / "gpu", **NAMED)
        lm.hf.to("cpu")
        assert_same_edges(edges(tmp_path / name / "gpu"), edges(tmp_path / name / "cpu"))
