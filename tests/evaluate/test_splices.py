"""Metrics with some of the MLPs replaced, against a model whose MLPs are replaced one by one in plain loops."""

import polars as pl
import pytest
import torch
from activations.test_cache import random_sequences
from torch.nn import functional as F
from worlds import dictionaries, models, projects

from cltdb.engine.plan import plan, preflight
from cltdb.errors import CltdbError
from cltdb.evaluate.evaluate import evaluate
from cltdb.evaluate.replacement import Agreement, Original
from cltdb.evaluate.settings import Evaluate
from cltdb.evaluate.splices import splices
from cltdb.evaluate.stage import STAGE
from cltdb.spec import load


@pytest.mark.parametrize("kind", ["clt", "plt", "sae"])
def test_each_splice_replaces_its_layers_alone(tmp_path, kind):
    lm = models.language_model(n_layers=4)
    d = dictionaries.random(kind=kind, n_layers=4, dtype=torch.float32)
    sequences = random_sequences(5)
    settings = Evaluate(splice=["single", "all_but_ends", [0, 3], [3, 0], "all"], batch_seqs=2)
    evaluate(settings, lm, d, sequences, directory=tmp_path, dict_id="d")
    rows = pl.read_parquet(tmp_path / "tables/metrics/*.parquet")
    got = {(row["variant"], row["layer"], row["name"]): row["value"] for row in rows.to_dicts()}
    assert len(got) == rows.height
    tokens, ordinary = torch.from_numpy(sequences.tokens).long(), torch.from_numpy(sequences.ordinary)
    captured = lm.run(tokens)
    mean = captured.mlp_output[ordinary].mean(0)

    def logits(layers, way):
        encoded = []

        def replace(layer, x, y):
            encoded.append(d.encode_layer(d.read_of(x, y), layer))
            if layer not in layers:
                return y
            new = {"zero": lambda: torch.zeros_like(y), "mean": lambda: mean[layer].expand_as(y)}
            new = new[way]() if way in new else d.decode_layer(encoded, layer)
            return torch.where(ordinary[..., None], new, y)

        with lm.replaced_mlps(replace):
            return lm.logits(tokens)

    counted = ordinary[:, :-1]
    wanted = {(None, None): [0, 1, 2, 3], ("all_but_ends", None): [1, 2], ("0,3", None): [0, 3]}
    wanted |= {("single", layer): [layer] for layer in range(4)}
    assert {key[:2] for key in got if key[2] == "ce_replacement"} == set(wanted)
    log_p = captured.logits[:, :-1][counted].log_softmax(-1)
    for (variant, layer), layers in wanted.items():
        for way in ("zero", "mean", "replacement"):
            found = logits(layers, way)[:, :-1][counted]
            ce = F.cross_entropy(found, tokens[:, 1:][counted]).item()
            assert got[variant, layer, f"ce_{way}"] == pytest.approx(ce, rel=1e-5)
        kl = F.kl_div(found.log_softmax(-1), log_p, log_target=True, reduction="batchmean").item()
        assert got[variant, layer, "kl_nats"] == pytest.approx(kl, rel=1e-3, abs=1e-7)


def test_an_mlp_whose_ablation_changes_nothing_has_no_share_recovered():
    tokens, logits = torch.tensor([[0, 1, 2, 1]]), torch.randn(1, 4, 5)
    agreement = Agreement()
    original = Original(tokens, tokens > 0, logits)
    agreement.add(original, {"zero": logits, "mean": logits, "replacement": logits + torch.arange(5)})
    rows = dict(agreement.rows())
    assert rows["ce_zero"] == rows["ce_original"] != rows["ce_replacement"] and "ce_recovered" not in rows


def test_splices_of_a_dictionary_of_some_layers():
    assert [splice.layers for splice in splices(["single", "all_but_ends"], (0, 2, 3), 4)] == [(0, 2, 3), (0,), (2,), (3,), (2,)]


@pytest.mark.parametrize(
    "asked, trained, n_layers, said",
    [([[1]], (0, 2), 3, "found layer 1"), (["all_but_ends"], (0, 1), 2, "without layers between"), ([[5]], (0, 1), 2, "layer 5")],
)
def test_a_splice_that_replaces_nothing_is_refused(asked, trained, n_layers, said):
    with pytest.raises(CltdbError, match=said):
        splices(asked, trained, n_layers)


def test_the_work_of_an_evaluation_grows_with_its_splices(tmp_path):
    """In units of an evaluation without one: five forward passes, and three more for each splice beside that of all MLPs."""
    folder = projects.with_dictionary(tmp_path, "evaluate: {tokens: 1000}\n")
    for asked, n_tokens in (
        ("[]", 1000),
        ("[all]", 1000),
        ("[single]", 1000 * 17 // 5),
        ("[single, all_but_ends, [0, 1]]", 1000 * 23 // 5),
    ):
        loaded = load(folder / "small.yaml", overrides=[f"evaluate.splice={asked}"])
        assert STAGE.work(loaded.experiment, loaded.project) == (n_tokens, "tokens")


def test_a_splice_that_a_published_dictionary_does_not_have_is_refused_before_the_run(tmp_path):
    folder = projects.with_dictionary(tmp_path, "evaluate: {splice: [[1, 4]]}\n")
    loaded = load(folder / "small.yaml")
    with pytest.raises(CltdbError, match="evaluate.splice: found layer 4; expected layers of the dictionary"):
        preflight(loaded, plan(loaded))
