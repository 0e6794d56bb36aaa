import numpy as np
import pytest
import torch

from cltdb.activations import codec


def roundtrip(x, name="int8"):
    scale = codec.channel_scale(x)
    columns = codec.encode(x, name, scale)
    shapes = {suffix: (values.shape[1], values.dtype) for suffix, values in columns.items()}
    assert shapes == codec.layout(name, n_layers=x.shape[1], d_model=x.shape[2])
    assert sum(2 * values.nbytes for values in columns.values()) == len(x) * codec.row_bytes(
        name, n_layers=x.shape[1], d_model=x.shape[2]
    )
    out = np.full(x.shape, np.nan, np.float32)
    codec.decode(columns, name, scale.numpy(), out)
    return torch.from_numpy(out)


def snr_db(x, y):
    """Per layer."""
    return 10 * torch.log10(x.square().sum((0, 2)) / (x - y).square().sum((0, 2)))


def random_activations(n_tokens=500, n_layers=3, d_model=64, seed=0):
    return torch.randn(n_tokens, n_layers, d_model, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "least"), [("int8", 40), ("int4", 20)])
@pytest.mark.parametrize("d_model", [64, 45])
def test_integers_survive_an_outlier_channel_and_a_loud_token(name, least, d_model):
    x = random_activations(d_model=d_model)
    assert snr_db(x, roundtrip(x, name)).min() > least
    loud = x.clone()
    loud[:, :, 5] *= 100
    loud[7] *= 50
    others = [channel for channel in range(d_model) if channel != 5]
    back = roundtrip(loud, name)
    assert snr_db(loud[:, :, others], back[:, :, others]).min() > least - 2
    quiet = [token for token in range(len(x)) if token != 7]
    assert snr_db(loud[quiet][:, :, others], back[quiet][:, :, others]).min() > least - 2


def test_float32_and_bfloat16_are_exact_to_their_precision():
    x = random_activations(20, 2, 8)
    assert torch.equal(roundtrip(x, "float32"), x)
    assert torch.equal(roundtrip(x, "bfloat16"), x.bfloat16().float())


@pytest.mark.parametrize("name", codec.CODECS)
def test_zeros_and_tiny_and_huge_values_stay_finite(name):
    zeros = torch.zeros(3, 2, 5)
    assert torch.equal(roundtrip(zeros, name), zeros)
    x = random_activations(40, 2, 40)
    for factor in (1e-30, 1e30):
        assert torch.allclose(roundtrip(x * factor, name), x * factor, atol=0.6 * factor, rtol=0)
    x[:, :, :33] *= 1e-9  # a group far below its token's loudest one
    assert torch.isfinite(roundtrip(x, name)).all()


def slow_int4(x, scale):
    """The formula value by value: two channels a byte, groups of 32 whose largest magnitude is -8."""
    out = torch.zeros_like(x)
    for token, layer in np.ndindex(*x.shape[:2]):
        z = x[token, layer] / scale[layer]
        token_scale = z.abs().max() / 8
        for start in range(0, x.shape[2], 32):
            group = z[start : start + 32]
            share = (group[group.abs().argmax()] / -8 / token_scale).half().float()
            q = (group / (share * token_scale)).round().clamp(-8, 7)
            out[token, layer, start : start + 32] = q * share * token_scale * scale[layer, start : start + 32]
    return out


@pytest.mark.parametrize("d_model", [64, 45, 1])
def test_int4_is_its_formula(d_model):
    x = random_activations(6, 2, d_model)
    assert torch.allclose(roundtrip(x, "int4"), slow_int4(x, codec.channel_scale(x)), rtol=1e-5, atol=1e-7)


def test_decoding_in_chunks_is_decoding(monkeypatch):
    x = random_activations(50, 2, 40)
    whole = {name: roundtrip(x, name) for name in codec.CODECS}
    monkeypatch.setattr(codec, "CHUNK_VALUES", 240)
    assert all(torch.equal(roundtrip(x, name), whole[name]) for name in codec.CODECS)
