import fakes
import pytest
import torch

from cltdb.errors import CltdbError
from cltdb.model import transcoder
from cltdb.model.nonlinearity import JumpReLU
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
    d = fakes.dictionary(kind=kind, n_layers=3, skip=skip)
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


def test_save_then_load_is_the_same(tmp_path):
    d = fakes.dictionary(skip=True, info={"model_id": "m"})
    d.save(tmp_path)
    loaded = load_dictionary(tmp_path)
    x = torch.randn(5, 2, 16, dtype=torch.float64)
    assert loaded.info["model_id"] == "m" and loaded.kind == d.kind and loaded.activation == d.activation
    assert torch.equal(loaded.decode(loaded.encode(x), x), d.decode(d.encode(x), x))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_computing_in_another_dtype_is_as_converted_whole_and_keeps_the_file(tmp_path, stored):
    fakes.dictionary(n_layers=3, n_features=40, skip=True, dtype=stored).save(tmp_path)
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
    d = fakes.dictionary(kind=kind, n_layers=3, n_features=40)
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
    d = fakes.dictionary(n_layers=2, n_features=40)
    x = torch.randn(6, 2, 16, dtype=torch.float64)
    for share in (0.03, 0.9):
        token, feature = (torch.rand(6, 40) < share).nonzero(as_tuple=True)
        torch.testing.assert_close(d.pre_activations_at(x[:, 1], 1, token, feature), d.pre_activations(x)[token, 1, feature])


def test_decoding_can_be_differentiated():
    d = fakes.dictionary(n_layers=2, n_features=6)
    a = torch.rand(2, 2, 6, dtype=torch.float64) * (torch.rand(2, 2, 6) < 0.5)
    active = a.nonzero(as_tuple=True)
    assert torch.autograd.gradcheck(lambda values: d.decode(a.index_put(active, values)), (a[active].requires_grad_(),))


def test_wrong_tensors_and_files_are_refused(tmp_path):
    d = fakes.dictionary()
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
