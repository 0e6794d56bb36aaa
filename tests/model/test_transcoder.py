import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from worlds import dictionaries

from cltdb.errors import CltdbError
from cltdb.model import transcoder
from cltdb.model.nonlinearity import JumpReLU, among_largest
from cltdb.model.transcoder import Dictionary, load_dictionary


def test_jumprelu_gradients_follow_the_closed_form():
    h = torch.tensor([-1.0, 0.4, 0.6, 2.0], dtype=torch.float64, requires_grad=True)
    threshold = torch.full((4,), 0.5, dtype=torch.float64, requires_grad=True)
    a = JumpReLU.apply(h, threshold, 0.4)
    assert a.tolist() == [0, 0, 0.6, 2.0]
    a.backward(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    assert h.grad.tolist() == [0, 0, 3, 4]
    assert torch.allclose(threshold.grad, -torch.tensor([0, 2.0, 3.0, 0], dtype=torch.float64) * 0.5 / 0.4)


@pytest.mark.parametrize("kind", ["clt", "plt"])
@pytest.mark.parametrize("skip", [False, True])
def test_encode_and_decode_are_the_formula(kind, skip):
    d = dictionaries.random(kind=kind, n_layers=3, skip=skip)
    x = torch.randn(4, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = torch.einsum("tld,lfd->tlf", x, d.W_enc) + d.b_enc
    a = torch.where(h > d.threshold, h, 0)
    assert torch.allclose(d.encode(x), a)
    for target in range(3):
        y = d.b_dec[target].clone().expand(4, -1)
        for source in range(target + 1) if kind == "clt" else [target]:
            y = y + a[:, source] @ d.W_dec[source][:, target - source]
        if skip:
            y = y + x[:, target] @ d.W_skip[target]
        assert torch.allclose(d.decode(a, x)[:, target], y)
    if skip:
        with pytest.raises(CltdbError, match="pass x"):
            d.decode(a)
    for wrong in (lambda: d.encode(x[:, 0]), lambda: d.pre_activations(x[:, :2]), lambda: d.decode(a[:, 0], x)):
        with pytest.raises(CltdbError, match=r"found a tensor of shape \[4, .*; expected \[..., 3, \d+\]: all layers"):
            wrong()  # rows of a batch would pass for layers


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("k", [1, 3, 8, 12])
def test_top_k_is_the_k_largest_positive_ones_one_by_one(k, rounded):
    """Written out: values from the largest down, equal ones by feature, until k are taken or none is positive."""
    h = torch.randn(40, 2, 12, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    h = (2 * h).round() / 2 if rounded else h  # many equal values, zeros among them
    expected = torch.zeros_like(h, dtype=torch.bool)
    for row, kept in zip(h.flatten(0, 1).tolist(), expected.flatten(0, 1), strict=True):
        best = sorted(range(12), key=lambda feature: (-row[feature], feature))[:k]
        kept[[feature for feature in best if row[feature] > 0]] = True
    assert torch.equal(among_largest(h, k), expected)
    assert (expected.sum(-1) < k).any() or k < 8, "no row with fewer than k positive values was tried"
    d = dictionaries.random(activation="topk", k=k)
    assert torch.equal(d.activate(h), h * expected) and torch.equal(d.activate(h[:, 1], 1), (h * expected)[:, 1])


def test_top_k_keeps_what_is_not_a_number_visible():
    h = torch.tensor([[1.0, float("nan"), 3.0, 2.0, 0.5] + 7 * [0.0]], dtype=torch.float64)
    assert dictionaries.random(activation="topk", k=2).activate(h).isnan().any()


@pytest.mark.parametrize("more", [{"activation": "topk", "k": 2}, {"activation": "jumprelu"}, {"activation": "relu"}])
def test_silent_features_are_plus_zero(more):
    d = dictionaries.random(**more)
    a = d.activate(torch.linspace(-1, 1, 12, dtype=torch.float64).expand(2, 12))
    assert (a == 0).any() and (a > 0).any() and not a.signbit().any()


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_top_k_dictionaries_in_every_form(tmp_path, kind):
    d = dictionaries.random(kind=kind, activation="topk", n_layers=3, k=5)
    x = torch.randn(4, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = torch.einsum("tld,lfd->tlf", x, d.W_enc) + d.b_enc
    a = h * (h >= h.topk(5, dim=-1).values[..., -1:]) * (h > 0)
    d.save(tmp_path)
    saved = json.loads((tmp_path / "dictionary.json").read_text())
    assert (saved["activation"], saved["k"], saved["format_version"]) == ("topk", 5, 2)
    for one in (
        d,
        load_dictionary(tmp_path),
        Dictionary.from_parts(d.parts()),
        d.to(dtype=torch.float64),
        d.computing(dtype=torch.float64),
    ):
        assert (one.activation, one.k, one.threshold) == ("topk", 5, None)
        assert torch.allclose(one.encode(x), a) and torch.allclose(one.encode_layer(x[:, 1], 1), a[:, 1])


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"k": None}, "k: found None with activation topk"),
        ({"k": 0}, "k: found 0 with"),
        ({"k": 13}, "k: found 13 with activation topk; expected a whole number from 1 to the 12 features"),
        ({"k": True}, "k: found True"),
        ({"threshold": torch.zeros(2, 12)}, "threshold: found one with activation topk"),
        ({"activation": "relu"}, "k: found 4 with activation relu"),
        ({"activation": "jumprelu", "k": None}, "threshold: found none with activation jumprelu"),
    ],
)
def test_k_belongs_to_top_k_and_thresholds_to_jumps(more, found):
    d = dictionaries.random(activation="topk")
    tensors = {name: getattr(d, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    with pytest.raises(CltdbError, match=f"dictionary {found}"):
        Dictionary(**{"kind": "clt", "activation": "topk", "k": 4} | tensors | more)


def test_old_top_k_dictionaries_keep_the_thresholds_they_were_saved_with(tmp_path):
    """Format version 1 had a threshold per feature in the place of k."""
    d = dictionaries.random(activation="jumprelu", info={"model_id": "m", "note": "mine"})
    d.save(tmp_path)
    header = json.loads((tmp_path / "dictionary.json").read_text())
    old = header | {"format_version": 1, "activation": "topk"} | header.pop("provenance")
    (tmp_path / "dictionary.json").write_text(json.dumps({name: value for name, value in old.items() if name != "provenance"}))
    loaded, x = load_dictionary(tmp_path), torch.randn(5, 2, 16, dtype=torch.float64)
    assert torch.equal(loaded.encode(x), d.encode(x)) and (loaded.activation, loaded.k) == ("jumprelu", None)
    loaded.save(tmp_path / "again")
    assert torch.equal(load_dictionary(tmp_path / "again").encode(x), d.encode(x))
    assert load_dictionary(tmp_path / "again").info["note"] == "mine"


@pytest.mark.parametrize(
    ("settings", "tensors", "found"),
    [
        ({"activation_fn": "topk"}, {}, "activation_fn 'topk', a setting that is not known"),
        ({"format_version": 3}, {}, "format_version 3; expected 1 or 2"),
        ({"n_layers": "2"}, {}, "no n_layers, or no such value"),
        ({"n_features": 16}, {}, "n_features 16 in dictionary.json, 12 in dictionary.safetensors"),
        ({"d_model": 8}, {}, "d_model 8 in dictionary.json"),
        ({"n_layers": 3}, {}, "no tensor W_dec.2"),
        ({"n_layers": 1}, {}, "the tensor W_dec.1"),
        ({}, {"scale": torch.ones(3)}, "the tensor scale"),
        ({}, {"W_dec.7": torch.ones(3)}, "the tensor W_dec.7"),
        ({"k": 3}, {}, "k: found 3 with activation jumprelu"),
    ],
)
def test_what_this_version_does_not_know_is_refused(tmp_path, settings, tensors, found):
    dictionaries.random().save(tmp_path)
    info, file = tmp_path / "dictionary.json", tmp_path / "dictionary.safetensors"
    info.write_text(json.dumps(json.loads(info.read_text()) | settings))
    save_file(load_file(file) | tensors, file)
    with pytest.raises(CltdbError, match=found):
        load_dictionary(tmp_path)


def test_save_then_load_is_the_same(tmp_path):
    d = dictionaries.random(skip=True, info={"model_id": "m", "note": {"free": [1]}})
    d.save(tmp_path)
    loaded = load_dictionary(tmp_path)
    x = torch.randn(5, 2, 16, dtype=torch.float64)
    assert loaded.info == d.info and loaded.kind == d.kind and loaded.activation == d.activation
    assert torch.equal(loaded.decode(loaded.encode(x), x), d.decode(d.encode(x), x))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_computing_in_another_dtype_is_as_converted_whole_and_keeps_the_file(tmp_path, stored):
    dictionaries.random(n_layers=3, n_features=40, skip=True, dtype=stored).save(tmp_path)
    loaded = load_dictionary(tmp_path)
    lazy, converted = loaded.computing(dtype=torch.float64), loaded.to(dtype=torch.float64)
    assert lazy.W_enc.dtype == lazy.W_dec[0].dtype == stored and lazy.W_dec[0].data_ptr() == loaded.W_dec[0].data_ptr()
    assert lazy.dtype == torch.float64 and loaded.dtype == stored
    x = torch.randn(5, 3, 16, dtype=torch.float64)
    a = lazy.encode(x)
    assert torch.equal(a, converted.encode(x)) and torch.equal(lazy.decode(a, x), converted.decode(a, x))
    sources = [a[:, source] for source in range(3)]
    torch.testing.assert_close(lazy.decode_layer(sources, 1, x[:, 1]), lazy.decode(a, x)[:, 1])


@pytest.mark.parametrize("kind", ["clt", "plt"])
@pytest.mark.parametrize("read_bytes", [100, 2**28])
def test_decoding_reads_the_rows_of_active_features_only(monkeypatch, kind, read_bytes):
    monkeypatch.setattr(transcoder, "READ_BYTES", read_bytes)
    d = dictionaries.random(kind=kind, n_layers=3, n_features=40)
    a = torch.zeros(2, 5, 3, 40, dtype=torch.float64)
    for place, value in {(0, 1, 0, 7): 2.0, (1, 4, 0, 7): -1.0, (1, 4, 0, 30): 0.5, (0, 0, 2, 39): 3.0}.items():
        a[place] = value
    dense = d.b_dec.expand(2, 5, 3, 16).clone()
    for source, W in enumerate(d.W_dec):
        dense[..., source : source + W.shape[1], :] += torch.einsum("bpf,ftd->bptd", a[..., source, :], W)
    for source, W in enumerate(d.W_dec):
        W[(a[..., source, :] == 0).all(0).all(0)] = float("nan")
    torch.testing.assert_close(d.decode(a), dense)
    torch.testing.assert_close(d.decode(a[1, 4]), dense[1, 4])  # of one token


def test_pre_activations_of_some_features():
    d = dictionaries.random(n_layers=2, n_features=40)
    x = torch.randn(6, 2, 16, dtype=torch.float64)
    for share in (0.03, 0.9):
        token, feature = (torch.rand(6, 40) < share).nonzero(as_tuple=True)
        torch.testing.assert_close(d.pre_activations_at(x[:, 1], 1, token, feature), d.pre_activations(x)[token, 1, feature])


def test_decoding_can_be_differentiated():
    d = dictionaries.random(n_layers=2, n_features=6)
    a = torch.rand(2, 2, 6, dtype=torch.float64) * (torch.rand(2, 2, 6) < 0.5)
    active = a.nonzero(as_tuple=True)
    assert torch.autograd.gradcheck(lambda values: d.decode(a.index_put(active, values)), (a[active].requires_grad_(),))


def test_wrong_tensors_and_files_are_refused(tmp_path):
    d = dictionaries.random()
    with pytest.raises(CltdbError, match=r"dictionary b_dec: found shape \[2, 15\]; expected \[2, 16\]"):
        Dictionary(
            kind="clt",
            activation="jumprelu",
            W_enc=d.W_enc,
            b_enc=d.b_enc,
            W_dec=d.W_dec,
            b_dec=d.b_dec[:, 1:],
            threshold=d.threshold,
        )
    with pytest.raises(CltdbError, match="no dictionary.json"):
        load_dictionary(tmp_path)
    d.save(tmp_path)
    file = tmp_path / "dictionary.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CltdbError, match="a damaged file"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_norms_and_sums_of_decoders_are_those_of_the_stored_numbers_in_float32_at_least(monkeypatch, stored):
    d = dictionaries.random(n_layers=3)
    d.W_dec = [W.to(stored) for W in d.W_dec]
    monkeypatch.setattr(transcoder, "READ_BYTES", 5 * d.W_dec[0][0].nbytes)  # a few features at a time
    for computing in (torch.bfloat16, torch.float32, torch.float64):
        measured = d.computing(dtype=computing)
        for layer, W in enumerate(W.double() for W in d.W_dec):
            assert torch.allclose(measured.decoder_norms(layer).double(), W.square().sum(-1).sqrt(), rtol=1e-6)
            assert torch.allclose(measured.decoder_sum(layer, slice(2)).double(), W[:, :2].sum(1), atol=1e-6)
