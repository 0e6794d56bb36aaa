import json

import numpy as np
import polars as pl
import pytest
import torch
from activations.test_cache import packed_sequences, random_sequences
from torch.nn import functional as F
from worlds import dictionaries, models

from cltdb.evaluate.evaluate import Agreement, OfLabel, evaluate
from cltdb.evaluate.reconstruction import Errors
from cltdb.evaluate.settings import Evaluate


@pytest.mark.parametrize("make", [random_sequences, packed_sequences])
def test_metrics_are_the_contract_formulas_computed_naively(tmp_path, make):
    """Of packed text over the tokens but BOS; without BOS within sequences these are positions 1 on, as they are with nothing excluded."""
    lm = models.language_model()
    d = dictionaries.random(dtype=torch.float32)
    sequences = make(9)
    evaluate(Evaluate(dense_above=0.3, batch_seqs=4), lm, d, sequences, directory=tmp_path, dict_id="d")
    rows = pl.read_parquet(tmp_path / "tables/metrics/evaluate.parquet")
    got = {(row["layer"], row["name"]): row["value"] for row in rows.to_dicts()}

    tokens = torch.from_numpy(sequences.tokens).long()
    captured, ordinary = lm.run(tokens), tokens != 0
    x, y = captured.mlp_input[ordinary], captured.mlp_output[ordinary]
    assert len(x) == (9 * 7 if make is random_sequences else len(x)) and 0 < len(x) <= 9 * 7
    a = d.encode(x)
    sse = (y - d.decode(a)).square().sum((0, 2))
    sst = (y - y.mean(0)).square().sum((0, 2))
    s = y.norm(dim=-1).mean(0) / lm.d_model**0.5
    density = (a > 0).float().mean(0)
    wanted = {
        (None, "fvu"): (sse / s**2).sum() / (sst / s**2).sum(),
        (None, "fvu_model_units"): sse.sum() / sst.sum(),
        (1, "fvu"): sse[1] / sst[1],
        (None, "l0"): (a > 0).sum(-1).float().mean(),
        (0, "l0"): (a[:, 0] > 0).sum(-1).float().mean(),
        (None, "dead_frac"): (density == 0).float().mean(),
        (None, "dense_frac"): (density > 0.3).float().mean(),
        (1, "density"): density[1].mean(),
        (1, "usage_gini"): (density[1][:, None] - density[1]).abs().mean() / 2 / density[1].mean(),
        (None, "usage_gini"): (density.ravel()[:, None] - density.ravel()).abs().mean() / 2 / density.mean(),
    }
    for key, value in wanted.items():
        assert got[key] == pytest.approx(float(value), rel=1e-4), key

    def with_mlps(new_output):
        with lm.replaced_mlps(lambda layer, x, y: y * ~ordinary[..., None] + new_output(layer, x, y) * ordinary[..., None]):
            return lm.logits(tokens)

    encoded = []

    def decoded(layer, x, y):
        encoded.append(d.encode_layer(x, layer))
        return d.decode_layer(encoded, layer, x)

    logits = {
        "original": captured.logits,
        "zero": with_mlps(lambda layer, x, y: 0),
        "mean": with_mlps(lambda layer, x, y: captured.mlp_output[ordinary].mean(0)[layer]),
        "replacement": with_mlps(decoded),
    }
    places = [(n, p) for n in range(9) for p in range(1, 7) if tokens[n, p]]  # where something ordinary stands, with a next token
    for name, found in logits.items():
        ce = [F.cross_entropy(found[n, p], tokens[n, p + 1]).item() for n, p in places if tokens[n, p + 1]]
        assert got[None, f"ce_{name}"] == pytest.approx(sum(ce) / len(ce), rel=1e-5), name
    p, q = (logits[name].log_softmax(-1)[tuple(zip(*places, strict=True))] for name in ("original", "replacement"))
    assert got[None, "kl_nats"] == pytest.approx(F.kl_div(q, p, log_target=True, reduction="batchmean").item(), rel=1e-4)
    assert got[None, "top1_agreement"] == pytest.approx((p.argmax(-1) == q.argmax(-1)).float().mean().item())
    overlap = pl.read_parquet(tmp_path / "tables/metrics/decoders.parquet").filter(layer=1, name="decoder_cosine_source_mean")
    cosine = F.cosine_similarity(d.W_dec[1].flatten(1)[:, None], d.W_dec[1].flatten(1), dim=-1).abs()
    assert overlap["value"].item() == pytest.approx(float((cosine.sum() - 12) / (12 * 11)), rel=1e-4)
    assert overlap["ci_low"].item() < overlap["value"].item() < overlap["ci_high"].item()
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert (counts["tokens"], counts["ordinary"]) == (72, len(x))
    assert (counts["predictions"], counts["predicted_tokens"]) == (len(places), len(ce))
    assert set(rows.filter(pl.col("layer").is_null())["name"]) >= {
        "kl_nats",
        "top1_agreement",
        "ce_replacement",
        "ce_mean",
        "ce_recovered",
    }


def test_a_perfect_reconstruction_has_fvu_zero_and_the_mean_has_one():
    y = torch.randn(100, 2, 8)
    for reconstruction, fvu in ((y, 0.0), (y.mean(0).expand_as(y), 1.0)):
        measured = Errors(2, 8)
        for part in (slice(0, 60), slice(60, 100)):
            measured.add(y[part], reconstruction[part], torch.full((len(y[part]), 2), 3))
        values = {(layer, name): value for layer, name, value in measured.rows([0, 1])}
        assert values[None, "fvu"] == pytest.approx(fvu, abs=1e-6) and values[None, "l0"] == 3


def test_the_true_dictionary_of_a_linear_model_agrees_with_it(tmp_path):
    """Replacing MLPs by themselves: a skip-only dictionary of linear MLPs loses nothing."""
    lm = models.language_model("gpt2")
    d = dictionaries.random(dtype=torch.float32, skip=True)
    with torch.no_grad():
        for layer, block in enumerate(lm.blocks):
            block.mlp.act = torch.nn.Identity()
            d.W_skip[layer] = block.mlp.c_fc.weight @ block.mlp.c_proj.weight
            d.b_dec[layer] = block.mlp.c_fc.bias @ block.mlp.c_proj.weight + block.mlp.c_proj.bias
        d.threshold.fill_(1e9)
    evaluate(Evaluate(dense_above=0.1, batch_seqs=2), lm, d, random_sequences(5), directory=tmp_path, dict_id="d")
    got = dict(
        pl.read_parquet(tmp_path / "tables/metrics/evaluate.parquet")
        .filter(pl.col("layer").is_null())
        .select("name", "value")
        .rows()
    )
    assert (
        got["fvu"] < 1e-8
        and got["kl_nats"] < 1e-8
        and got["top1_agreement"] == 1
        and got["ce_recovered"] == pytest.approx(1, abs=1e-3)
    )


def test_layers_that_were_not_trained_keep_their_mlps_and_stay_out_of_the_metrics(tmp_path):
    lm, d, sequences = models.language_model(), dictionaries.random(dtype=torch.float32), random_sequences(9)
    d.info["layers"] = [1]
    evaluate(Evaluate(dense_above=0.3, batch_seqs=4), lm, d, sequences, directory=tmp_path, dict_id="d")
    rows = pl.read_parquet(tmp_path / "tables/metrics/evaluate.parquet")
    got = {(row["layer"], row["name"]): row["value"] for row in rows.to_dicts()}
    assert set(rows["layer"]) == {None, 1}
    assert got[None, "l0"] == got[1, "l0"] and got[None, "fvu"] == pytest.approx(got[1, "fvu"])
    tokens = torch.from_numpy(sequences.tokens).long()
    with lm.replaced_mlps(lambda layer, x, y: torch.cat([y[:, :1], torch.zeros_like(y[:, 1:])], 1) if layer == 1 else None):
        zero = lm.logits(tokens)
    wanted = F.cross_entropy(zero[:, 1:-1].flatten(0, 1), tokens[:, 2:].flatten()).item()
    assert got[None, "ce_zero"] == pytest.approx(wanted, rel=1e-5)


def test_metrics_of_a_label_are_those_of_its_tokens_alone(tmp_path):
    """Against plain loops over all tokens; the third of a text without a label counts in the whole alone, as does all of a splice."""
    lm, d, text = models.language_model(), dictionaries.random(dtype=torch.float32), packed_sequences(12)
    labels = (np.arange(text.tokens.size) // 5 % 3 - 1).astype(np.int16).reshape(text.tokens.shape)
    labelled = text.changed(labels=labels, label_names=["en", "fr"], by_label=True)
    settings = Evaluate(dense_above=0.3, batch_seqs=5, splice=["single"])
    evaluate(settings, lm, d, labelled, directory=tmp_path / "labelled", dict_id="d")
    evaluate(settings, lm, d, text, directory=tmp_path / "plain", dict_id="d")
    rows, plain = (pl.read_parquet(tmp_path / f"{name}/tables/metrics/*.parquet") for name in ("labelled", "plain"))
    order = ["variant", "layer", "name"]
    assert rows.filter(pl.col("label").is_null()).sort(order).equals(plain.sort(order))
    got = {
        (row["label"], row["layer"], row["name"]): row["value"] for row in rows.filter(pl.col("label").is_not_null()).to_dicts()
    }
    assert rows.filter(pl.col("label").is_not_null() & pl.col("variant").is_not_null()).is_empty()

    tokens, ordinary = torch.from_numpy(text.tokens).long(), torch.from_numpy(text.ordinary)
    captured, encoded = lm.run(tokens), []

    def decoded(layer, x, y):
        encoded.append(d.encode_layer(x, layer))
        return torch.where(ordinary[..., None], d.decode_layer(encoded, layer, x), y)

    with lm.replaced_mlps(decoded):
        replaced = lm.logits(tokens).double().log_softmax(-1)
    original = captured.logits.double().log_softmax(-1)
    for code, name in enumerate(["en", "fr"]):
        here = ordinary & torch.from_numpy(labels == code)
        x, y = captured.mlp_input[here], captured.mlp_output[here]
        a = d.encode(x)
        sse, sst = (y - d.decode(a)).square().sum((0, 2)), (y - y.mean(0)).square().sum((0, 2))
        s = y.norm(dim=-1).mean(0)
        wanted = {
            (None, "tokens"): here.sum(),
            (None, "fvu"): (sse / s**2).sum() / (sst / s**2).sum(),
            (1, "fvu"): sse[1] / sst[1],
        }
        wanted |= {(None, "l0"): (a > 0).sum(-1).float().mean(), (0, "l0"): (a[:, 0] > 0).sum(-1).float().mean()}
        places = [(n, p) for n, p in here.nonzero().tolist() if p + 1 < tokens.shape[1]]
        p, q = (logits[tuple(zip(*places, strict=True))] for logits in (original, replaced))
        texts = [(n, p) for n, p in places if ordinary[n, p + 1]]
        wanted[None, "kl_nats"] = F.kl_div(q, p, log_target=True, reduction="batchmean")
        wanted[None, "top1_agreement"] = (p.argmax(-1) == q.argmax(-1)).float().mean()
        wanted[None, "ce_replacement"] = -sum(replaced[n, p, tokens[n, p + 1]] for n, p in texts) / len(texts)
        wanted[None, "ce_original"] = -sum(original[n, p, tokens[n, p + 1]] for n, p in texts) / len(texts)
        for key, value in wanted.items():
            assert got[name, *key] == pytest.approx(float(value), rel=1e-4), key
    assert not {name for _, _, name in got} & {"dead_frac", "dense_frac"}


def test_an_fvu_that_only_rounding_makes_is_left_out_of_a_labels_metrics():
    """Seven tokens of one label with the same output in layer 1: its variance is 0 but for rounding of either sign."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        y = torch.randn(7, 2, 24, generator=generator).double()
        y[:, 1] = y[0, 1].float().double() / 3
        errors = Errors(2, 24)
        errors.add(y, y + 0.1, torch.ones(7, 2))
        names = {row[:2] for row in OfLabel("en", errors, Agreement()).rows([0, 1])}
        assert (0, "fvu") in names and (None, "l0") in names
        assert not {(1, "fvu"), (None, "fvu"), (1, "fvu_model_units"), (None, "fvu_model_units")} & names
