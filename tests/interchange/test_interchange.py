"""Other tools' dictionaries: files built from the format descriptions (numbers by the formula of each tool), and round trips."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from worlds import dictionaries

from cltdb.errors import CltdbError
from cltdb.interchange import files_of, load_published, published_parts, save_published
from cltdb.model.transcoder import load_dictionary

L, F, D = 3, 10, 8
NAMES = ("W_enc", "b_enc", "b_dec", "threshold", "W_skip")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def x_of():
    return draw(5, L, D, seed=9)


def same(a, b):
    assert (a.kind, a.k, a.layers, a.info.get("mlp_input"), a.info.get("model_id")) == (
        b.kind,
        b.k,
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
    *(("circuit-tracer", "plt", activation, skip) for activation in ("relu", "jumprelu", "topk") for skip in (False, True)),
    *(("clt-forge", kind, "jumprelu", False) for kind in ("clt", "plt")),
    *(("saelens", "plt", activation, skip) for activation in ("relu", "jumprelu") for skip in (False, True)),
    *(("cltdb", kind, "topk", True) for kind in ("clt", "plt")),
]


@pytest.mark.parametrize(("format", "kind", "activation", "skip"), ROUND_TRIPS)
@pytest.mark.parametrize("mlp_input", ["normed", "residual"])
def test_export_then_import_is_the_same_dictionary(tmp_path, format, kind, activation, skip, mlp_input):
    info = {"model_id": "some/model", "mlp_input": mlp_input}
    d = dictionaries.random(
        kind=kind, activation=activation, skip=skip, n_layers=L, n_features=F, d_model=D, dtype=torch.float32, info=info
    )
    if format == "clt-forge" and mlp_input == "residual":
        with pytest.raises(CltdbError, match="features that read hook_resid_mid; expected ln2.hook_normalized"):
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
    d = dictionaries.random(kind=kind, n_layers=L, n_features=F, d_model=D, dtype=torch.float32, info={"layers": [0]})
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


def gemma_scope_layers():
    """Per layer the tensors of Gemma Scope 1, by its names, and what such a PLT makes of x [token, L, D]."""
    layers = [
        {
            "W_enc": draw(D, F, seed=layer),
            "b_enc": draw(F, seed=layer + 10),
            "W_dec": draw(F, D, seed=layer + 20),
            "b_dec": draw(D, seed=layer + 30),
            "threshold": draw(F, seed=layer + 40).abs(),
        }
        for layer in range(L)
    ]

    def output(x):
        h = [x[:, i] @ t["W_enc"] + t["b_enc"] for i, t in enumerate(layers)]
        return torch.stack([(h[i] * (h[i] > t["threshold"])) @ t["W_dec"] + t["b_dec"] for i, t in enumerate(layers)], 1)

    return layers, output


def write_config(folder, *, kind="transcoder_set", **settings):
    folder.mkdir(exist_ok=True)
    hooks = {"feature_input_hook": "ln2.hook_normalized", "feature_output_hook": "hook_mlp_out"}
    (folder / "config.yaml").write_text(json.dumps({"model_name": "google/gemma", "model_kind": kind, **hooks, **settings}))


@pytest.mark.parametrize("compressed", [False, True])
def test_gemma_scope_1_transcoders_in_npz_files(tmp_path, compressed):
    layers, output = gemma_scope_layers()
    for i, tensors in enumerate(layers):
        (tmp_path / f"layer_{i}/any width").mkdir(parents=True)
        (np.savez_compressed if compressed else np.savez)(tmp_path / f"layer_{i}/any width/params.npz", **tensors)
    write_config(tmp_path / "set", transcoders=[f"../layer_{i}/any width/params.npz" for i in range(L)])
    d, x = load_published("circuit-tracer", tmp_path / "set"), x_of()
    assert (d.kind, d.activation, d.info["mlp_input"], d.info["model_id"]) == ("plt", "jumprelu", "normed", "google/gemma")
    torch.testing.assert_close(d.decode(d.encode(x)), output(x), rtol=1e-5, atol=1e-5)
    published_parts("circuit-tracer", tmp_path / "set").save(tmp_path / "native")
    same(load_dictionary(tmp_path / "native"), d)
    assert tmp_path / "set" / f"../layer_{L - 1}/any width/params.npz" in files_of(tmp_path / "set")


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_gemma_scope_2_transcoders(tmp_path, cross, skip):
    layers, output = gemma_scope_layers()
    W_skip, W_dec = [draw(D, D, seed=i) for i in range(L)], [draw(F, L, D, seed=i + 50) for i in range(L)]
    for i, t in enumerate(layers):
        tensors = {"w_enc": t["W_enc"], "w_dec": W_dec[i] if cross else t["W_dec"]}
        tensors |= {name: t[name] for name in ("b_enc", "b_dec", "threshold")}
        save_file(tensors | ({"affine_skip_connection": W_skip[i]} if skip else {}), tmp_path / f"params_{i}.safetensors")
    kind = "cross_layer_transcoder" if cross else "transcoder_set"
    write_config(tmp_path, kind=kind, transcoders=[str(tmp_path / f"params_{i}.safetensors") for i in range(L)])
    d, x = load_published("circuit-tracer", tmp_path), x_of()
    y = output(x)
    if cross:
        h = [x[:, i] @ t["W_enc"] + t["b_enc"] for i, t in enumerate(layers)]
        a = [h[i] * (h[i] > t["threshold"]) for i, t in enumerate(layers)]
        y = torch.stack([sum(a[s] @ W_dec[s][:, t] for s in range(t + 1)) + layers[t]["b_dec"] for t in range(L)], 1)
    if skip:
        y = y + torch.stack([x[:, i] @ W_skip[i] for i in range(L)], 1)
    assert d.kind == ("clt" if cross else "plt")
    torch.testing.assert_close(d.decode(d.encode(x), x), y, rtol=1e-5, atol=1e-5)


def test_listed_transcoders_come_from_the_hub(tmp_path, monkeypatch):
    info, asked = {"model_id": "google/gemma"}, []
    d = dictionaries.random(kind="plt", n_layers=3, n_features=F, d_model=D, dtype=torch.float32, info=info)
    save_published(d, "circuit-tracer", tmp_path / "repository")

    def download(repository, file, *, revision):
        asked.append((repository, file, revision))
        return str(tmp_path / "repository" / Path(file).name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    paths = ["hf://owner/name/layer_0.safetensors", "hf://owner/name/a/b/layer_1.safetensors?revision=v1.2"]
    write_config(tmp_path / "set", transcoders=[*paths, "hf://owner/name@main/layer_2.safetensors"])
    same(load_published("circuit-tracer", tmp_path / "set"), load_published("circuit-tracer", tmp_path / "repository"))
    assert asked == [
        ("owner/name", "layer_0.safetensors", None),
        ("owner/name", "a/b/layer_1.safetensors", "v1.2"),
        ("owner/name", "layer_2.safetensors", "main"),
    ]
    for bad in ("hf://owner/name", "hf://owner", "hf://owner/name@a/file?revision=b"):
        write_config(tmp_path / "set", transcoders=[bad])
        with pytest.raises(CltdbError, match="expected hf://owner/name/file"):
            load_published("circuit-tracer", tmp_path / "set")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    write_config(tmp_path / "set", transcoders=paths)
    with pytest.raises(CltdbError, match=r"layer_0.safetensors, which cannot be downloaded \(offline\)"):
        load_published("circuit-tracer", tmp_path / "set")


def test_what_is_wrong_with_listed_transcoders_is_said(tmp_path):
    layers, _ = gemma_scope_layers()
    np.savez(tmp_path / "a.npz", **layers[0])
    np.savez(tmp_path / "objects.npz", **layers[0] | {"W_dec": np.array([{}])})
    np.savez(tmp_path / "short.npz", **layers[0] | {"b_enc": layers[0]["b_enc"][1:]})
    (tmp_path / "text.npz").write_text("none")
    wrong = {
        "b.npz": "no file",
        "objects.npz": "expected an npz file",
        "text.npz": "expected an npz file",
        "short.npz": rf"b_enc: found shape \[{F - 1}\]; expected \[{F}\]",
    }
    for name, message in wrong.items():
        write_config(tmp_path, transcoders=["a.npz", name])
        with pytest.raises(CltdbError, match=message):
            load_published("circuit-tracer", tmp_path)
    write_config(tmp_path, transcoders={"0": "a.npz"})
    with pytest.raises(CltdbError, match="expected a list of files"):
        load_published("circuit-tracer", tmp_path)
    write_config(tmp_path, kind="cross_layer_transcoder", transcoders=["a.npz"])
    with pytest.raises(CltdbError, match="a.npz.*expected a safetensors file"):
        load_published("circuit-tracer", tmp_path)


@pytest.mark.parametrize("scaled", [False, True])
def test_half_precision_stays_where_nothing_is_folded_into_it(tmp_path, scaled):
    d = dictionaries.random(n_layers=L, n_features=F, d_model=D, dtype=torch.bfloat16)
    for format in ("circuit-tracer", "clt-forge"):
        save_published(d, format, tmp_path / format)
    if scaled:
        path = tmp_path / "clt-forge/clt_weights.safetensors"
        scales = {f"estimated_norm_scaling_factor_{side}": torch.full((L,), 1.5) for side in ("in", "out")}
        save_file(load_file(path) | scales, path)
    for format in ("circuit-tracer", "clt-forge"):
        published_parts(format, tmp_path / format).save(tmp_path / format / "native")
        again = load_dictionary(tmp_path / format / "native")
        assert again.W_enc.dtype == again.W_dec[0].dtype == (torch.float32 if scaled and "forge" in format else torch.bfloat16)


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
    settings = {"model_name": "gpt2", "cross_layer_decoders": cross} | ({"d_latent": F} if shards else {})
    (tmp_path / "clt_cfg.json").write_text(json.dumps(settings))
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
    d = dictionaries.random(n_layers=L, n_features=F, d_model=D, dtype=torch.float32)
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
    with pytest.raises(CltdbError, match="architecture 'gated'"):
        saelens_layer(tmp_path / "gated", 0, architecture="gated")
        load_published("saelens", tmp_path / "gated")
    with pytest.raises(CltdbError, match="apply_b_dec_to_input True"):
        saelens_layer(tmp_path / "input", 0, apply_b_dec_to_input=True)
        load_published("saelens", tmp_path / "input")
    with pytest.raises(CltdbError, match="features that read blocks.0.hook_z"):
        saelens_layer(tmp_path / "hook", 0, hook="hook_z")
        load_published("saelens", tmp_path / "hook")
    for name, metadata, found in (
        ("list", [1], r"metadata: found \[1\]"),
        ("no name", {"hook_name": None}, "hook_name None"),
        ("number", {"hook_name": 5}, "hook_name 5"),
        (
            "two layers",
            {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.0.hook_mlp_out"},
            "expected one layer",
        ),
        ("model", {"hook_name": "blocks.0.ln2.hook_normalized", "model_name": [1]}, r"the model \[1\]; expected a name"),
        ("layers", {"hook_name": "blocks.0.ln2.hook_normalized", "n_layers": "2"}, "n_layers a number"),
    ):
        saelens_layer(tmp_path / name, 0, metadata=metadata)
        with pytest.raises(CltdbError, match=found):
            load_published("saelens", tmp_path / name)
    for name, wrong, found in (
        ("integers", torch.zeros(F, D, dtype=torch.int32), "layer 0 W_enc: found torch.int32"),
        ("nan", torch.full((F, D), torch.nan), "layer 0 W_enc: found a value that is not finite"),
    ):
        published = dictionaries.random(n_layers=L, n_features=F, d_model=D, dtype=torch.float32)
        save_published(published, "circuit-tracer", tmp_path / name)
        tensors = load_file(tmp_path / name / "W_enc_0.safetensors")
        save_file(tensors | {"W_enc_0": wrong}, tmp_path / name / "W_enc_0.safetensors")
        with pytest.raises(CltdbError, match=found):
            published_parts("circuit-tracer", tmp_path / name).save(tmp_path / f"{name} here")
        assert not (tmp_path / f"{name} here" / "dictionary.json").exists()
    with pytest.raises(CltdbError, match="found a clt with a skip connection"):
        save_published(dictionaries.random(skip=True), "circuit-tracer", tmp_path / "skip")
    with pytest.raises(CltdbError, match="found a clt"):
        save_published(dictionaries.random(), "saelens", tmp_path / "clt")
    for format, kind in (("circuit-tracer", "clt"), ("clt-forge", "plt"), ("saelens", "plt")):
        with pytest.raises(CltdbError, match=r"found activation topk \(k 4\)"):
            save_published(dictionaries.random(kind=kind, activation="topk"), format, tmp_path / "topk files")
    below = dictionaries.random(kind="plt")
    below.threshold[0, 0] = -0.1
    with pytest.raises(CltdbError, match="a threshold below 0"):
        save_published(below, "saelens", tmp_path / "below")
    with pytest.raises(CltdbError, match="no threshold"):
        save_published(dictionaries.random(activation="relu"), "clt-forge", tmp_path / "relu")
    with pytest.raises(CltdbError, match="expected circuit-tracer, clt-forge, saelens, cltdb"):
        load_published("gguf", tmp_path)


def test_the_names_of_the_formats_cost_no_library():
    """The command line reads them for its help."""
    script = "import sys, cltdb.interchange; print(sorted({'numpy', 'pydantic', 'torch', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr
