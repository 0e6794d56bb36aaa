"""Other tools' dictionaries: files built from the format descriptions (numbers by the formula of each tool), and round trips."""

import json

import fakes
import pytest
import torch
from safetensors.torch import save_file

from cltdb.errors import CltdbError
from cltdb.interchange import load_published, save_published

L, F, D = 3, 10, 8
NAMES = ("W_enc", "b_enc", "b_dec", "threshold", "W_skip")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def x_of():
    return draw(5, L, D, seed=9)


def same(a, b):
    assert (a.kind, a.layers, a.info.get("mlp_input"), a.info.get("model_id")) == (
        b.kind,
        b.layers,
        b.info.get("mlp_input"),
        b.info.get("model_id"),
    )
    for name in NAMES:
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None), name
        if first is not None:
            torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)
    for first, second in zip(a.W_dec, b.W_dec, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)


ROUND_TRIPS = [
    *(("circuit-tracer", "clt", activation, False) for activation in ("relu", "jumprelu", "batchtopk")),
    *(("circuit-tracer", "plt", activation, skip) for activation in ("relu", "jumprelu") for skip in (False, True)),
    *(("clt-forge", kind, "jumprelu", False) for kind in ("clt", "plt")),
    *(("saelens", "plt", activation, False) for activation in ("relu", "jumprelu")),
    ("saelens", "plt", "relu", True),
    *(("cltdb", kind, "topk", True) for kind in ("clt", "plt")),
]


@pytest.mark.parametrize(("format", "kind", "activation", "skip"), ROUND_TRIPS)
@pytest.mark.parametrize("mlp_input", ["normed", "residual"])
def test_export_then_import_is_the_same_dictionary(tmp_path, format, kind, activation, skip, mlp_input):
    info = {"model_id": "some/model", "mlp_input": mlp_input}
    d = fakes.dictionary(
        kind=kind, activation=activation, skip=skip, n_layers=L, n_features=F, d_model=D, dtype=torch.float32, info=info
    )
    if format == "clt-forge" and mlp_input == "residual":
        with pytest.raises(CltdbError, match="features that read the MLP input 'residual'"):
            save_published(d, format, tmp_path / "there")
        assert not (tmp_path / "there").exists()
        return
    save_published(d, format, tmp_path / "there")
    again = load_published(format, tmp_path / "there")
    same(again, d)
    x = x_of()
    torch.testing.assert_close(again.decode(again.encode(x), x), d.decode(d.encode(x), x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("format", "kind"), [("saelens", "plt"), ("cltdb", "clt"), ("circuit-tracer", "clt"), ("clt-forge", "plt")]
)
def test_a_dictionary_of_some_layers_stays_one_or_is_refused(tmp_path, format, kind):
    d = fakes.dictionary(kind=kind, n_layers=L, n_features=F, d_model=D, dtype=torch.float32, info={"layers": [0]})
    for tensor in (d.W_enc, d.b_enc, d.b_dec):
        tensor[1:] = 0
    if format in ("saelens", "cltdb"):
        save_published(d, format, tmp_path / "there")
        again = load_published(format, tmp_path / "there")
        assert (again.layers, again.n_layers) == (d.layers, d.n_layers) == ((0,), L)
    else:
        with pytest.raises(CltdbError, match="layers 0 of 3; expected one of every layer"):
            save_published(d, format, tmp_path / "there")


@pytest.mark.parametrize("jump", [False, True])
def test_a_circuit_tracer_clt(tmp_path, jump):
    (tmp_path / "config.yaml").write_text(
        "model_name: some/model\nmodel_kind: cross_layer_transcoder\nfeature_input_hook: hook_resid_mid\n"
        "feature_output_hook: hook_mlp_out\nscan: x\n"
    )
    W_enc, b_enc, b_dec, threshold = draw(L, F, D), draw(L, F), draw(L, D), draw(L, F).abs()
    W_dec = [draw(F, L - layer, D) for layer in range(L)]
    for i in range(L):
        encoder = {f"W_enc_{i}": W_enc[i], f"b_enc_{i}": b_enc[i], f"b_dec_{i}": b_dec[i]}
        encoder |= {f"threshold_{i}": threshold[i]} if jump else {}
        save_file({name: part.contiguous() for name, part in encoder.items()}, tmp_path / f"W_enc_{i}.safetensors")
        save_file({f"W_dec_{i}": W_dec[i]}, tmp_path / f"W_dec_{i}.safetensors")
    d = load_published("circuit-tracer", tmp_path)
    assert (d.kind, d.activation, d.info["mlp_input"]) == ("clt", "jumprelu" if jump else "relu", "residual")
    x = x_of()
    h = torch.einsum("pld,lfd->plf", x, W_enc) + b_enc
    a = h * (h > threshold) if jump else h.relu()
    y = [b_dec[t] + sum(a[:, s] @ W_dec[s][:, t - s] for s in range(t + 1)) for t in range(L)]
    torch.testing.assert_close(d.decode(d.encode(x)), torch.stack(y, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_circuit_tracer_transcoder_set(tmp_path, transposed):
    W_enc, W_dec, b_enc, b_dec, W_skip = draw(L, F, D), draw(L, F, D, seed=1), draw(L, F), draw(L, D), draw(L, D, D)
    for i in range(L):
        tensors = {"W_enc": W_enc[i], "W_dec": W_dec[i].T if transposed else W_dec[i], "b_enc": b_enc[i], "b_dec": b_dec[i]}
        tensors |= {"W_skip": W_skip[i]}
        save_file({name: part.contiguous() for name, part in tensors.items()}, tmp_path / f"layer_{i}.safetensors")
    d, x = load_published("circuit-tracer", tmp_path), x_of()
    y = [(x[:, i] @ W_enc[i].T + b_enc[i]).relu() @ W_dec[i] + b_dec[i] + x[:, i] @ W_skip[i].T for i in range(L)]
    torch.testing.assert_close(d.decode(d.encode(x), x), torch.stack(y, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize("cross", [True, False])
def test_a_clt_forge_checkpoint(tmp_path, shards, cross):
    pairs = [(s, t) for s in range(L) for t in (range(s, L) if cross else [s])]
    tensors = {
        "W_enc": draw(L, D, F),
        "b_enc": draw(L, F),
        "W_dec": draw(len(pairs), F, D),
        "b_dec": draw(len(pairs), D),
        "log_threshold": draw(L, F) - 1,
        "feature_count": torch.zeros(L, F, dtype=torch.int64),
        "estimated_norm_scaling_factor_in": draw(L).abs() + 0.5,
        "estimated_norm_scaling_factor_out": draw(L, seed=3).abs() + 0.5,
    }
    (tmp_path / "clt_cfg.json").write_text(json.dumps({"model_name": "gpt2", "cross_layer_decoders": cross}))
    if shards:
        for rank in range(shards):
            mine = slice(rank * F // shards, (rank + 1) * F // shards)
            axes = {"W_enc": (..., mine), "b_enc": (..., mine), "W_dec": (slice(None), mine), "log_threshold": (..., mine)}
            part = {name: value[axes.get(name, ...)].contiguous() for name, value in tensors.items()}
            save_file(part, tmp_path / f"rank{rank}_clt_weights.safetensors")
    else:
        save_file(tensors, tmp_path / "clt_weights.safetensors")
    d, x = load_published("clt-forge", tmp_path), x_of()
    s_in, s_out = tensors["estimated_norm_scaling_factor_in"], tensors["estimated_norm_scaling_factor_out"]
    h = torch.einsum("pld,ldf->plf", x * s_in[:, None], tensors["W_enc"]) + tensors["b_enc"]
    a = h * (h > tensors["log_threshold"].exp())
    y = torch.zeros(5, L, D)
    for (s, t), W, b in zip(pairs, tensors["W_dec"], tensors["b_dec"], strict=True):
        y[:, t] += (a[:, s] @ W + b) / s_out[t]
    assert d.kind == ("clt" if cross else "plt")
    torch.testing.assert_close(d.decode(d.encode(x)), y, rtol=1e-5, atol=1e-5)


def saelens_layer(folder, layer, *, architecture="skip_transcoder", hook="hook_resid_mid", **settings):
    folder.mkdir(parents=True)
    tensors = {
        "W_enc": draw(D, F, seed=layer),
        "b_enc": draw(F),
        "W_dec": draw(F, D, seed=layer),
        "b_dec": draw(D),
        "W_skip": draw(D, D),
    }
    save_file(tensors, folder / "sae_weights.safetensors")
    metadata = {"model_name": "some/model", "hook_name": f"blocks.{layer}.{hook}"}
    (folder / "cfg.json").write_text(json.dumps({"architecture": architecture, "metadata": metadata, **settings}))
    return tensors


def test_saelens_transcoders_of_some_layers(tmp_path):
    by_layer = {layer: saelens_layer(tmp_path / f"any name {layer}", layer) for layer in (0, 2)}
    d, x = load_published("saelens", tmp_path), x_of()
    assert (d.kind, d.n_layers, d.layers, d.info["mlp_input"]) == ("plt", 3, (0, 2), "residual")
    y = d.decode(d.encode(x), x)
    for layer, t in by_layer.items():
        expected = (x[:, layer] @ t["W_enc"] + t["b_enc"]).relu() @ t["W_dec"] + t["b_dec"] + x[:, layer] @ t["W_skip"].T
        torch.testing.assert_close(y[:, layer], expected, rtol=1e-5, atol=1e-5)
    assert not y[:, 1].any()


def test_what_cannot_be_read_or_written_is_said(tmp_path):
    with pytest.raises(CltdbError, match="found none of its files; expected layer_0"):
        (tmp_path / "empty").mkdir()
        load_published("circuit-tracer", tmp_path / "empty")
    d = fakes.dictionary(n_layers=L, n_features=F, d_model=D, dtype=torch.float32)
    save_published(d, "circuit-tracer", tmp_path / "gap")
    (tmp_path / "gap/W_enc_1.safetensors").unlink()
    with pytest.raises(CltdbError, match="found layers 0, 2"):
        load_published("circuit-tracer", tmp_path / "gap")
    save_file({"W_enc_1": draw(F, D + 1)}, tmp_path / "gap/W_enc_1.safetensors")
    with pytest.raises(CltdbError, match=r"W_enc_1: found shape \[10, 9\]; expected \[10, 8\]"):
        load_published("circuit-tracer", tmp_path / "gap")
    (tmp_path / "gap/W_enc_1.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CltdbError, match="expected a safetensors file"):
        load_published("circuit-tracer", tmp_path / "gap")
    with pytest.raises(CltdbError, match="architecture 'topk'"):
        saelens_layer(tmp_path / "topk", 0, architecture="topk")
        load_published("saelens", tmp_path / "topk")
    with pytest.raises(CltdbError, match="apply_b_dec_to_input True"):
        saelens_layer(tmp_path / "input", 0, apply_b_dec_to_input=True)
        load_published("saelens", tmp_path / "input")
    with pytest.raises(CltdbError, match="features that read blocks.0.hook_z"):
        saelens_layer(tmp_path / "hook", 0, hook="hook_z")
        load_published("saelens", tmp_path / "hook")
    with pytest.raises(CltdbError, match="found a clt with a skip connection"):
        save_published(fakes.dictionary(skip=True), "circuit-tracer", tmp_path / "skip")
    with pytest.raises(CltdbError, match="found a clt"):
        save_published(fakes.dictionary(), "saelens", tmp_path / "clt")
    with pytest.raises(CltdbError, match="no threshold"):
        save_published(fakes.dictionary(activation="relu"), "clt-forge", tmp_path / "relu")
    with pytest.raises(CltdbError, match="expected circuit-tracer, clt-forge, saelens, cltdb"):
        load_published("gguf", tmp_path)
