"""Isolation: leakage against closed forms and plain loops, and that strength does not depend on how a feature's scale is shared."""

import math

import numpy as np
import polars as pl
import polars.testing
import pytest
import torch
from activations.test_cache import packed_sequences, random_sequences
from worlds import dictionaries, models

from cltdb.engine.workspace import write_parquet
from cltdb.evaluate.isolation import (
    Clean,
    Raised,
    decoder_norms,
    decoder_overlaps,
    drawn_features,
    leakages,
    prompts_of,
    scales,
)
from cltdb.evaluate.isolation_table import write_isolation
from cltdb.evaluate.settings import Evaluate, Isolation
from cltdb.evaluate.stage import STAGE
from cltdb.model.language_model import LanguageModel
from cltdb.model.transcoder import Dictionary
from cltdb.replacement.interventions import Setting
from cltdb.replacement.responses import free_logits

SETTINGS = Evaluate(isolation=Isolation(features=5, multiples=[1.0, -2.0], prompts=4, prompt_tokens=6), batch_seqs=4)


def sae(angle, norms=(1.0, 1.0), *, reads="mlp_output"):
    """An SAE of two layers. In layer 0 two features with decoders of these norms at this angle, encoders of the same directions, which fire wherever they
    stand (bias 100): reading them is linear. In layer 1 nothing fires."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))[0]
    directions = torch.stack([basis[0], math.cos(angle) * basis[0] + math.sin(angle) * basis[1]])
    W_dec = torch.zeros(2, 2, 1, 16, dtype=torch.float64)
    W_dec[0, :, 0] = directions * torch.tensor(norms, dtype=torch.float64)[:, None]
    W_enc = torch.zeros(2, 2, 16, dtype=torch.float64)
    W_enc[0] = directions / torch.tensor(norms, dtype=torch.float64)[:, None]
    b_enc = torch.full((2, 2), -1.0, dtype=torch.float64)
    b_enc[0] = 100
    parts = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": list(W_dec), "b_dec": torch.zeros(2, 16, dtype=torch.float64)}
    return Dictionary(kind="sae", activation="relu", info={"reads": reads}, **parts)


def firing(kind, **sizes):
    """A random dictionary, an SAE with encoders that the small MLP outputs of a random model drive."""
    d = dictionaries.random(kind=kind, **sizes)
    d.W_enc *= 30 if kind == "sae" else 1
    return d


def measured(lm, dictionary, tokens, asked):
    clean = Clean.of(lm, dictionary, tokens, rows_at_once=3)
    return [(layer, raised, row) for layer, raised, row in leakages(lm, dictionary, clean, asked, rows_at_once=8)]


@pytest.mark.parametrize("reads", ["mlp_output", "mlp_input"])
@pytest.mark.parametrize("angle", [0.0, 1.0, math.pi / 2, 2.5])
def test_leakage_between_two_decoders_is_the_cosine_of_their_angle(angle, reads):
    """Whatever their norms: the second decoder is five times as long, its activations are a fifth."""
    lm, d = models.language_model(dtype=torch.float64), sae(angle, (1.0, 5.0), reads=reads)
    tokens = torch.from_numpy(random_sequences(3).tokens[:, :6]).long()
    asked = {0: [Raised(feature, multiple, 0.5) for feature in (0, 1) for multiple in (1.0, -3.0)]}
    for _, raised, row in measured(lm, d, tokens, asked):
        assert row["leakage_same"] == pytest.approx(abs(math.cos(angle)), abs=1e-9)
        assert row["own_response"] == pytest.approx(1) and row["leakage_later"] == 0
        most = (0, 1 - raised.feature) if abs(math.cos(angle)) > 1e-9 else (row["most_layer"], row["most_feature"])
        assert (row["most_layer"], row["most_feature"]) == most and (row["n_prompts"], row["n_unrelated"]) == (3, 0)
    assert decoder_overlaps(d, 0, [0, 1]) == pytest.approx([abs(math.cos(angle))] * 2, abs=1e-9)
    assert decoder_overlaps(d, 1, [1]) == [0]


def transcoder(kind, angle, norms=(2.0, 1.5)):
    """A CLT or PLT of two layers, to be read in the residual stream. In layer 0 feature 0 writes with these norms: to its own layer along u, and a CLT also
    to layer 1. In layer 1 two features have decoders of norms 5 and 1 at this angle to u and at a right angle, and encoders of the same directions."""
    generator = torch.Generator().manual_seed(4)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))[0]
    directions = torch.stack([math.cos(angle) * basis[0] + math.sin(angle) * basis[1], basis[2]])
    W_dec = [torch.zeros(2, 2 - layer if kind == "clt" else 1, 16, dtype=torch.float64) for layer in range(2)]
    for target in range(W_dec[0].shape[1]):
        W_dec[0][0, target] = norms[target] * basis[3 * target]
    scale = torch.tensor([[5.0], [1.0]], dtype=torch.float64)
    W_dec[1][:, 0] = directions * scale
    W_enc, b_enc = torch.zeros(2, 2, 16, dtype=torch.float64), torch.full((2, 2), 100.0, dtype=torch.float64)
    W_enc[1] = directions / scale
    parts = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": torch.zeros(2, 16, dtype=torch.float64)}
    return Dictionary(kind=kind, activation="relu", info={"mlp_input": "residual"}, **parts)


def bare_stream():
    """A model that adds nothing to the residual stream after the embeddings."""
    hf = models.hf_model(dtype=torch.float64)
    with torch.no_grad():
        for block in hf.transformer.h:
            for part in (block.attn.c_proj, block.mlp.c_proj):
                part.weight.zero_(), part.bias.zero_()
    return LanguageModel(hf, models.byte_tokenizer(), model_id="bare", mlp_input="residual")


@pytest.mark.parametrize(("kind", "own"), [("clt", 2.5), ("plt", 2.0)])
@pytest.mark.parametrize("angle", [0.0, 1.0, math.pi / 2, 2.5])
def test_a_transcoder_leaks_into_the_next_layer_by_the_cosine_and_has_none_in_its_own(kind, own, angle):
    """What layer 0 writes, 2 along u, is what layer 1 reads. own: the norm of the decoders of all target layers, 2 and, of a CLT, 1.5."""
    lm, d = bare_stream(), transcoder(kind, angle)
    tokens = torch.from_numpy(random_sequences(3).tokens[:, :6]).long()
    for _, _, row in measured(lm, d, tokens, {0: [Raised(0, multiple, 0.5) for multiple in (1.0, -3.0)]}):
        assert row["leakage_later"] == pytest.approx(2 * abs(math.cos(angle)) / own, abs=1e-9)
        assert row["leakage_same"] is None and row["own_response"] is None
    for _, _, row in measured(lm, d, tokens, {1: [Raised(0, 1.0, 0.5)]}):
        assert row["leakage_same"] is None and row["leakage_later"] is None


def raised_by_hand(lm, d, prompt, layer, feature, amount):
    """(activations at the last position [n_layers, n_features], whether the feature fires somewhere, log-probabilities) of one prompt."""
    found, fires = [], []

    def see(at, x, y):
        read, y = d.read_of(x, y)[0].clone(), y.clone()
        if at == layer:
            fires.append(bool((d.encode_layer(read, at)[1:, feature] > 0).any()))
            if d.reconstructs:
                read[-1] += amount * d.decoder(layer)[feature, 0]
        found.append(d.encode_layer(read, at)[-1])
        if at in d.target_layers(layer):
            y[0, -1] += amount * d.decoder(layer)[feature, at - layer]
        return y

    with lm.replaced_mlps(see):
        log_p = lm.logits(prompt[None])[0, -1].log_softmax(-1)
    return torch.stack(found), fires[0], log_p


@pytest.mark.parametrize("kind", ["clt", "plt", "sae"])
def test_leakage_is_that_of_loops_over_interventions_in_mode_free(kind):
    lm, d = models.language_model(n_layers=3, dtype=torch.float64), firing(kind, n_layers=3)
    tokens = torch.from_numpy(random_sequences(4).tokens[:, :6]).long()
    asked = {layer: [Raised(f, m, h) for f, m, h in ((3, 1.0, 0.4), (7, -2.0, 0.3), (0, 2.0, 1.5))] for layer in range(3)}
    norms = torch.stack([decoder_norms(d, layer) for layer in range(3)])
    for layer, raised, row in measured(lm, d, tokens, asked):
        feature, amount = raised.feature, raised.multiple * raised.high
        changes, kl, response = torch.zeros(3, d.n_features, dtype=torch.float64), [], []
        for prompt in tokens:
            before, fires, clean = raised_by_hand(lm, d, prompt, layer, feature, 0)
            after, _, changed = raised_by_hand(lm, d, prompt, layer, feature, amount)
            if kind != "sae":  # the modes of interventions are for transcoders
                set_to = [Setting(layer, feature, 5, "set", float(before[layer, feature] + amount))]
                torch.testing.assert_close(changed, free_logits(lm, d, prompt.tolist(), set_to, 1).log_softmax(-1))
            changes += (after - before).abs() * norms / len(tokens)
            response.append(float((after - before)[layer, feature] / amount))
            if not fires:
                kl.append(float((clean.exp() * (clean - changed)).sum()))
        own = abs(amount) * norms[layer, feature]
        assert float(changes[:layer].sum()) == 0
        changes[layer, feature] = 0
        same, later = float(changes[layer].sum() / own), float(changes[layer + 1 :].sum() / own)
        assert row["leakage_same"] == (pytest.approx(same) if kind == "sae" else None) and (kind == "sae" or same == 0)
        assert row["own_response"] == (pytest.approx(np.mean(response)) if kind == "sae" else None)
        assert row["leakage_later"] == (pytest.approx(later) if layer < 2 else None)
        assert row["n_unrelated"] == len(kl) and row["kl_nats"] == (pytest.approx(np.mean(kl)) if kl else None)
        most = divmod(int(changes.argmax()), d.n_features) if changes.any() else (None, None)
        assert (row["most_layer"], row["most_feature"]) == most
        assert row["most_change"] == (pytest.approx(float(changes.max() / own)) if changes.any() else None)


def test_the_scale_of_a_feature_is_the_percentile_of_what_it_does_on_ordinary_tokens():
    lm, d, text = models.language_model(), dictionaries.random(dtype=torch.float32), packed_sequences(9)
    d.b_enc[1, 4] = -1e6
    found = scales(lm, d, text, {0: [2, 5, 11], 1: [4, 7]}, batch_seqs=4)
    ordinary = torch.from_numpy(text.ordinary)
    x = lm.run(torch.from_numpy(text.tokens).long()).mlp_input[ordinary]
    a = d.encode(x)
    for (layer, feature), high in found.items():
        values = a[:, layer, feature].numpy()
        wanted = np.quantile(values[values > 0], 0.99) if (values > 0).any() else 0
        assert high == pytest.approx(wanted, rel=1e-5)
    assert len(found) == 5 and found[1, 4] == 0


def test_a_layer_where_nothing_fires_has_no_rows(tmp_path):
    lm, d, text = models.language_model(), dictionaries.random(dtype=torch.float32), packed_sequences(9)
    assert scales(lm, d, text, {0: [2], 1: []}, batch_seqs=4).keys() == {(0, 2)}
    fired = np.ones((2, 12))
    fired[1] = 0
    write_isolation(SETTINGS, (lm, d), text, fired, facts=[], seed=0, directory=tmp_path, dict_id="d")
    assert set(pl.read_parquet(tmp_path / "tables/isolation/isolation.parquet")["layer"]) == {0}


def test_a_runs_table_has_the_mean_leakage_of_features_that_others_are_read_after(tmp_path):
    """Features of the last layer have none, which is not 0. An SAE's have that of their own layer."""
    leaks = {"leakage_same": [None, None, None, 1.0], "leakage_later": [1.0, 2.2, None, None]}
    frame = pl.DataFrame(leaks | {"kl_nats": [0.0] * 4, "multiple": 1.0, "is_sampled": True}, strict=False)
    for name, rows, wanted in (("transcoder", frame[:3], "1.600"), ("sae", frame[[0, 3]], "1.000"), ("last", frame[2:3], None)):
        write_parquet(tmp_path / name / "tables/isolation/isolation.parquet", rows)
        assert STAGE.compared(tmp_path / name, None).get("leakage") == wanted


def test_features_are_drawn_among_those_that_fire():
    fired = torch.zeros(2, 50, dtype=torch.int64)
    fired[0, ::2], fired[1, 3] = 1, 9
    drawn = drawn_features(fired.numpy(), (0, 1), n=10, seed=4)
    assert len(set(drawn[0])) == 10 and drawn[0] == sorted(drawn[0]) and all(one % 2 == 0 for one in drawn[0])
    assert drawn[1] == [3] and drawn != drawn_features(fired.numpy(), (0, 1), n=10, seed=5)


def test_prompts_are_beginnings_that_end_with_an_ordinary_token():
    text = packed_sequences(12)
    prompts = prompts_of(text, n=4, n_tokens=5, seed=0)
    assert prompts.shape == (4, 5) and all(text.ordinary[(text.tokens[:, :5] == row.numpy()).all(1), 4].all() for row in prompts)
    assert len(prompts_of(text, n=99, n_tokens=5, seed=0)) == text.ordinary[:, 4].sum()


def rescaled(d, seed):
    """The same dictionary with each feature's activation multiplied by a number of its own and its decoders divided by it."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.exp(2 * torch.randn(d.n_layers, d.n_features, generator=generator, dtype=d.dtype))
    W_dec = [W / factor[layer, :, None, None] for layer, W in enumerate(d.W_dec)]
    parts = {"W_enc": d.W_enc * factor[..., None], "b_enc": d.b_enc * factor, "threshold": d.threshold * factor}
    return Dictionary(kind=d.kind, activation=d.activation, W_dec=W_dec, b_dec=d.b_dec, **parts), factor


@pytest.mark.parametrize("kind", ["clt", "sae"])
def test_strength_and_leakage_do_not_depend_on_how_scale_is_shared(tmp_path, kind):
    """A regularised dictionary may have short decoders and large activations. One value for all dictionaries, as published code sets, would then do
    something else in each; here every row is the same."""
    lm, text = models.language_model(dtype=torch.float64), packed_sequences(20)
    d = firing(kind)
    other, factor = rescaled(d, 0)
    frames = []
    for name, one in (("d", d), ("other", other)):
        fired = np.ones((2, 12))
        write_isolation(SETTINGS, (lm, one), text, fired, facts=[], seed=0, directory=tmp_path / name, dict_id="d")
        frames.append(pl.read_parquet(tmp_path / name / "tables/isolation/isolation.parquet"))
    before, after = frames
    assert before.height >= 12 and before["kl_nats"].drop_nulls().max() > 1e-6 and before["leakage_later"].max() > 0.1
    same = pl.all().exclude("high", "decoder_norm")
    pl.testing.assert_frame_equal(before.select(same), after.select(same), rel_tol=1e-8)
    for row, changed in zip(before.to_dicts(), after.to_dicts(), strict=True):
        own = float(factor[row["layer"], row["feature"]])
        assert changed["high"] == pytest.approx(own * row["high"]) and changed["decoder_norm"] == pytest.approx(
            row["decoder_norm"] / own
        )
