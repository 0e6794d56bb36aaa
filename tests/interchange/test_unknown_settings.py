"""What a reader does not know and what may change the features is refused by name, in every format; stated sizes are compared."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_interchange import D, F, L, draw, gemma_scope_layers, saelens_layer, write_config, x_of
from worlds import dictionaries

from cltdb.errors import CltdbError
from cltdb.interchange import load_published, save_published

FORMATS = ("circuit-tracer clt", "circuit-tracer plt", "gemma-scope", "clt-forge", "saelens", "cltdb")


def written(name, folder, *, activation="jumprelu"):
    """(the format of a dictionary written to `folder`, its file of settings, one of its files of tensors)."""
    format, _, kind = name.partition(" ")
    if name == "gemma-scope":
        layers, _ = gemma_scope_layers()
        write_config(folder, transcoders=[f"{layer}.npz" for layer in range(L)])
        for layer, tensors in enumerate(layers):
            np.savez(folder / f"{layer}.npz", **tensors)
        return "circuit-tracer", folder / "config.yaml", folder / "1.npz"
    d = dictionaries.random(kind=kind or "plt", activation=activation, n_layers=L, n_features=F, d_model=D, dtype=torch.float32)
    save_published(d, format, folder)
    settings, tensors = {
        "circuit-tracer clt": ("config.yaml", "W_enc_1.safetensors"),
        "circuit-tracer plt": ("config.yaml", "layer_1.safetensors"),
        "clt-forge": ("clt_cfg.json", "clt_weights.safetensors"),
        "saelens": ("layer_1/cfg.json", "layer_1/sae_weights.safetensors"),
        "cltdb": ("dictionary.json", "dictionary.safetensors"),
    }[name]
    return format, folder / settings, folder / tensors


def change_settings(path, **changes):
    settings = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    path.write_text(json.dumps(settings | changes))


SETTINGS = {
    "rescale_acts_by_decoder_norm": "sqrt",
    "activation_fn": "gelu",
    "activation_fn_kwargs": {"alpha": 4},
    "activation": "swish",
    "k": 4,
    "apply_b_dec_to_input": True,
    "normalize_activations": "layer_norm",
    "finetuning_scaling_factor": True,
    "post_encoder_scale": 2.0,
    "decoder_type": "low_rank",
    "decoder_is_tied": True,
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", FORMATS)
def test_an_unknown_setting_is_refused_by_name(tmp_path, name, setting):
    format, path, _ = written(name, tmp_path / "there")
    load_published(format, tmp_path / "there")
    change_settings(path, **{setting: SETTINGS[setting]})
    with pytest.raises(CltdbError, match=rf"\b(no )?{setting}\b"):
        load_published(format, tmp_path / "there")


REAL = {
    "circuit-tracer clt": {"scan": ["a", "b"], "scan_name": "a", "repo_id": "a/b", "revision": None, "subfolder": None},
    "circuit-tracer plt": {
        "activation": "jump_relu",
        "k": None,
        "scan_name": "a/b//c@main",
        "revision": "main",
        "subfolder": "c",
    },
    "clt-forge": {
        **{
            "device": "cuda",
            "dtype": "float32",
            "seed": 42,
            "debug": False,
            "jumprelu_bandwidth": 1.0,
            "jumprelu_init_threshold": 0.03,
        },
        **{
            "normalize_decoder": False,
            "dead_feature_window": 250,
            "context_size": 16,
            "functional_loss": None,
            "l0_coefficient": 2.0,
        },
        **{
            "ddp": False,
            "fsdp": False,
            "feature_sharding": False,
            "activation_fn": "jumprelu",
            "k": None,
            "sparse_decode": "dense",
        },
    },
    "saelens": {
        **{"normalize_activations": "none", "reshape_activations": "none", "apply_b_dec_to_input": False, "device": "cpu"},
        **{
            "activation_fn": "relu",
            "dtype": "float32",
            "hook_head_index": None,
            "model_from_pretrained_kwargs": {},
            "context_size": 1024,
        },
    },
}


@pytest.mark.parametrize("name", REAL)
def test_what_other_tools_write_beside_it_is_read(tmp_path, name):
    format, path, _ = written(name, tmp_path / "there")
    before = load_published(format, tmp_path / "there")
    change_settings(path, **REAL[name])
    after, x = load_published(format, tmp_path / "there"), x_of()
    assert torch.equal(after.encode(x), before.encode(x))


@pytest.mark.parametrize("name", FORMATS)
def test_an_unknown_tensor_is_refused_by_name(tmp_path, name):
    format, _, path = written(name, tmp_path / "there")
    if path.suffix == ".npz":
        np.savez(path, **dict(np.load(path)), scaling_factor=np.ones(F))
    else:
        save_file(load_file(path) | {"scaling_factor": torch.ones(F)}, path)
    with pytest.raises(CltdbError, match="the tensor scaling_factor"):
        load_published(format, tmp_path / "there")


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [
        *((f"circuit-tracer {kind}", size, n) for kind in ("clt", "plt") for size, n in (("d_transcoder", F), ("n_layers", L))),
        *(("clt-forge", size, n) for size, n in (("d_latent", F), ("n_layers", L), ("d_in", D))),
        *(("saelens", size, n) for size, n in (("d_sae", F), ("d_in", D), ("d_out", D))),
    ],
)
@pytest.mark.parametrize("stated", [64, True, "many"])
def test_stated_sizes_are_those_of_the_tensors(tmp_path, name, size, found, stated):
    format, path, _ = written(name, tmp_path / "there")
    change_settings(path, **{size: found})
    load_published(format, tmp_path / "there")
    change_settings(path, **{size: stated})
    with pytest.raises(CltdbError, match=f"{size} {stated!r}, where the tensors have {found}"):
        load_published(format, tmp_path / "there")


@pytest.mark.parametrize(
    ("name", "file", "found"),
    [
        ("circuit-tracer clt", "W_dec_3.safetensors", "W_dec_3.safetensors, which belongs to none of the 3 layers"),
        ("circuit-tracer clt", "W_skip_0.safetensors", "W_skip_0.safetensors"),
        ("circuit-tracer clt", "layer_0.safetensors", "layer_0.safetensors"),
        ("circuit-tracer plt", "layer_4.safetensors", "layers 0, 1, 2, 4"),
        ("circuit-tracer plt", "layers_3.safetensors", "layers_3.safetensors"),
        ("clt-forge", "rank0_clt_weights.safetensors", "clt_weights.safetensors and rank0_clt_weights.safetensors"),
    ],
)
def test_files_that_belong_to_no_layer_are_refused(tmp_path, name, file, found):
    format, *_ = written(name, tmp_path / "there")
    save_file({"x": torch.ones(2)}, tmp_path / "there" / file)
    with pytest.raises(CltdbError, match=found):
        load_published(format, tmp_path / "there")


def test_files_of_a_clt_beside_a_list_of_others_are_refused(tmp_path):
    _, settings, path = written("circuit-tracer clt", tmp_path)
    change_settings(settings, transcoders=[path.name])
    with pytest.raises(CltdbError, match="transcoders: 1 files, beside W_enc_0.safetensors"):
        load_published("circuit-tracer", tmp_path)


@pytest.mark.parametrize("world_size", [None, 4])
@pytest.mark.parametrize("lost", [[3], [2, 3], [1]])
def test_a_clt_forge_checkpoint_lacks_no_rank(tmp_path, lost, world_size):
    tensors = {"W_enc": draw(2, D, 64), "b_enc": draw(2, 64), "W_dec": draw(3, 64, D), "log_threshold": draw(2, 64)}
    axes = {"W_enc": 2, "b_enc": 1, "W_dec": 1, "log_threshold": 1}
    b_dec = draw(3, D)
    settings = {"d_in": D, "d_latent": 64, "n_layers": 2, "cross_layer_decoders": True, "feature_sharding": True}
    (tmp_path / "clt_cfg.json").write_text(json.dumps(settings | ({"world_size": 4} if world_size else {})))
    for rank in range(4):
        part = {name: value.chunk(4, dim=axes[name])[rank].contiguous() for name, value in tensors.items()}
        save_file(part | {"b_dec": b_dec}, tmp_path / f"rank{rank}_clt_weights.safetensors")
    assert load_published("clt-forge", tmp_path).n_features == 64
    for rank in lost:
        (tmp_path / f"rank{rank}_clt_weights.safetensors").unlink()
    with pytest.raises(CltdbError, match="d_latent 64, where the tensors have|found layers 0, 2, 3"):
        load_published("clt-forge", tmp_path)
    (tmp_path / "clt_cfg.json").write_text("{}")
    with pytest.raises(CltdbError, match="no d_latent|found layers 0, 2, 3"):
        load_published("clt-forge", tmp_path)


def test_clt_forge_pairs_in_another_order_are_refused(tmp_path):
    save_published(dictionaries.random(n_layers=2, dtype=torch.float32), "clt-forge", tmp_path)
    path = tmp_path / "clt_weights.safetensors"
    for mask, fails in (([[1, 1, 0], [0, 0, 1]], False), ([[1, 0, 0], [0, 1, 1]], True)):
        save_file(load_file(path) | {"layer_mask": torch.tensor(mask).float()}, path)
        if fails:
            with pytest.raises(CltdbError, match="layer_mask: found pairs in another order"):
                load_published("clt-forge", tmp_path)
        else:
            load_published("clt-forge", tmp_path)


def top_k_of(h, k):
    return torch.zeros_like(h).scatter(-1, h.topk(k, dim=-1).indices, 1) * h.relu()


@pytest.mark.parametrize("in_tensors", [False, True])
@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_circuit_tracer_sets_of_top_k(tmp_path, kind, in_tensors):
    """k in config.yaml, or in the layers' files, where circuit-tracer's own writer puts it."""
    name = f"circuit-tracer {kind}"
    _, settings, _ = written(name, tmp_path, activation="relu")
    if in_tensors and kind == "plt":
        for path in tmp_path.glob("layer_*"):
            save_file(load_file(path) | {"k": torch.tensor(4)}, path)
    else:
        change_settings(settings, activation="topk", k=4)
    d, x = load_published("circuit-tracer", tmp_path), x_of()
    h = torch.einsum("tld,lfd->tlf", x, d.W_enc) + d.b_enc
    assert (d.activation, d.k) == ("topk", 4) and (h > 0).sum(-1).max() > 4
    torch.testing.assert_close(d.encode(x), top_k_of(h, 4))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"activation": "topk"}, "k: found none; expected with activation topk"),
        ({"activation": "topk", "k": 0}, "k: found 0"),
        ({"activation": "topk", "k": 11}, "k: found 11"),
        ({"activation": "topk", "k": 2.0}, r"k: found 2\.0"),
        ({"activation": "topk", "k": True}, "k: found True"),
        ({"k": 4}, "k 4 with activation relu"),
        ({"activation": "relu", "k": 4}, "k 4 with activation relu"),
        ({"activation": "jumprelu"}, "activation 'jumprelu' where the tensors are those of relu"),
        ({"activation": "TopK", "k": 4}, "activation 'TopK'"),
        ({"activation": ["topk"], "k": 4}, r"activation \['topk'\]"),
        ({"model_kind": "lorsa"}, "model_kind 'lorsa'"),
    ],
)
def test_what_circuit_tracer_sets_say_of_their_activation_fits(tmp_path, settings, found):
    _, path, _ = written("circuit-tracer plt", tmp_path, activation="relu")
    change_settings(path, **settings)
    with pytest.raises(CltdbError, match=found):
        load_published("circuit-tracer", tmp_path)


@pytest.mark.parametrize("stated", ["relu", "topk"])
def test_thresholds_beside_another_activation_are_refused(tmp_path, stated):
    _, path, tensors = written("circuit-tracer plt", tmp_path)
    change_settings(path, activation=stated, k=4 if stated == "topk" else None)
    with pytest.raises(CltdbError, match=f"activation '{stated}' where the tensors are those of jumprelu"):
        load_published("circuit-tracer", tmp_path)
    change_settings(path, activation=None, k=None)
    save_file(load_file(tensors) | {"k": torch.tensor(4)}, tensors)
    with pytest.raises(CltdbError, match=r"k None with activation jumprelu and \[None, 4, None\]"):
        load_published("circuit-tracer", tmp_path)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize(
    ("settings", "k"),
    [
        ({}, None),
        ({"activation_fn": "relu", "activation_fn_kwargs": {}}, None),
        ({"activation_fn": "topk", "k": 4}, 4),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}, 4),
    ],
)
def test_saelens_activations(tmp_path, settings, k, rescaled):
    """With rescale_acts_by_decoder_norm as SAELens computes it: pre-activations times the decoders' norms, which activations are divided by
    when they are decoded."""
    t = saelens_layer(tmp_path / "layer", 0, rescale_acts_by_decoder_norm=rescaled, **settings)
    t["W_dec"][3] = 0
    save_file(t, tmp_path / "layer/sae_weights.safetensors")
    d, x = load_published("saelens", tmp_path), draw(20, 1, D)
    norms = t["W_dec"].norm(dim=1) if rescaled else torch.ones(F)
    h = (x[:, 0] @ t["W_enc"] + t["b_enc"]) * norms
    a = h.relu() if k is None else top_k_of(h, k)
    assert (d.activation, d.k) == ("relu" if k is None else "topk", k)
    torch.testing.assert_close(d.encode(x)[:, 0], a, rtol=1e-5, atol=1e-5)
    y = (a / norms.clamp(min=1e-30)) @ t["W_dec"] + t["b_dec"] + x[:, 0] @ t["W_skip"].T
    torch.testing.assert_close(d.decode(d.encode(x), x)[:, 0], y, rtol=1e-5, atol=1e-5)


def test_saelens_thresholds_come_after_a_relu(tmp_path):
    t = saelens_layer(tmp_path / "layer", 0, architecture="jumprelu_skip_transcoder")
    t["threshold"] = draw(F)
    save_file(t, tmp_path / "layer/sae_weights.safetensors")
    x = draw(20, 1, D)
    h = x[:, 0] @ t["W_enc"] + t["b_enc"]
    assert ((h > t["threshold"]) & (h < 0)).any()
    torch.testing.assert_close(load_published("saelens", tmp_path).encode(x)[:, 0], h.relu() * (h > t["threshold"]))


@pytest.mark.parametrize(
    ("architecture", "settings", "found"),
    [
        *((name, {}, f"architecture '{name}'") for name in ("gated", "abstopk", "matryoshka_transcoder")),
        ("skip_transcoder", {"activation_fn": "tanh-relu"}, "activation_fn tanh-relu"),
        ("skip_transcoder", {"activation_fn": "topk"}, "k: found none"),
        ("skip_transcoder", {"activation_fn": "topk", "k": 4, "activation_fn_kwargs": {"k": 5}}, "k 4 and 5"),
        ("skip_transcoder", {"activation_fn": "relu", "activation_fn_str": "topk", "k": 4}, "relu and topk"),
        ("skip_transcoder", {"k": 4}, "k 4 with activation_fn relu"),
        ("skip_transcoder", {"rescale_acts_by_decoder_norm": 1}, "rescale_acts_by_decoder_norm 1"),
        ("skip_transcoder", {"normalize_activations": "expected_average_only_in"}, "normalize_activations"),
        ("skip_transcoder", {"hook_head_index": 3}, "hook_head_index 3"),
        ("skip_transcoder", {"hook_name": "blocks.2.hook_resid_mid"}, "found hook_name"),
        ("skip_transcoder", {"hook_layer": 1}, "hook_layer 1"),
        ("skip_transcoder", {"model_from_pretrained_kwargs": {"fold_ln": True}}, "fold_ln"),
        ("transcoder", {}, "the tensor W_skip"),
        ("jumprelu_skip_transcoder", {}, "no tensor threshold"),
        ("jumprelu_skip_transcoder", {"activation_fn": "topk", "k": 4}, "activation_fn topk with architecture jumprelu"),
        ("jumprelu_skip_transcoder", {"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm True"),
    ],
)
def test_saelens_settings_that_cannot_be_read(tmp_path, architecture, settings, found):
    t = saelens_layer(tmp_path / "layer", 0, architecture=architecture, **settings)
    if "threshold" not in found and "jumprelu" in architecture:
        save_file(t | {"threshold": draw(F).abs()}, tmp_path / "layer/sae_weights.safetensors")
    with pytest.raises(CltdbError, match=found):
        load_published("saelens", tmp_path)


def test_an_exported_set_names_no_files(tmp_path):
    """On the Hub circuit-tracer takes what `transcoders` lists for paths of the local disk, and the layers' files without it."""
    _, settings, _ = written("circuit-tracer plt", tmp_path)
    assert yaml.safe_load(settings.read_text()).keys() == {
        *("model_name", "model_kind", "feature_input_hook", "feature_output_hook", "scan")
    }
