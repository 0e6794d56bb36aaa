"""What a published dictionary reads and writes: TransformerLens has an RMSNorm's hook_normalized before its gain, a LayerNorm's after gain
and bias up to version 2 and before them since 3.0."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_interchange import saelens_layer
from worlds import dictionaries, models

from cltdb.__main__ import main
from cltdb.errors import CltdbError
from cltdb.interchange import load_published, published_parts, save_published
from cltdb.interchange.hook_points import fitted, input_of, measured_fvu, output_of
from cltdb.model.fit import check_fits
from cltdb.model.loading import load_model
from cltdb.model.norms import is_centred, norm_bias, norm_gain, norm_scale
from cltdb.model.transcoder import Dictionary, load_dictionary

LAYER = ("gpt2", "gpt_neox")
RMS = [name for name in models.ARCHITECTURES if name not in LAYER]


def model(architecture, seed=0):
    """A random model whose norms have gains and biases of their own; a fresh one's are all 1 and 0."""
    lm = models.language_model(architecture)
    generator = torch.Generator().manual_seed(seed)
    for block in lm.blocks:
        for parameter in block.mlp_norm.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return lm


def before_gain(lm, tokens):
    """MLP inputs [token, layer, d_model] as TransformerLens 3 has them at hook_normalized."""
    seen = []

    def keep(norm, args):
        x = args[0] - args[0].mean(-1, keepdim=True) if is_centred(norm) else args[0]
        seen.append(x * norm_scale(norm, args[0]))

    hooks = [block.mlp_norm.register_forward_pre_hook(keep) for block in lm.blocks]
    lm.run(tokens)
    for hook in hooks:
        hook.remove()
    return torch.stack(seen, 2).flatten(0, 1)


def published(tmp_path, kind="plt", skip=True, hook="ln2.hook_normalized"):
    d = dictionaries.random(kind=kind, skip=skip, dtype=torch.float32, info={"mlp_input": "normed", "input_hook": hook})
    save_published(d, "circuit-tracer", tmp_path / "theirs")
    return d


@pytest.mark.parametrize("architecture", [*RMS, *LAYER])
def test_norms_go_into_encoders_that_read_what_comes_before_them(tmp_path, architecture):
    theirs, lm, tokens = published(tmp_path), model(architecture), torch.arange(20)[None]
    x, y = before_gain(lm, tokens), lm.run(tokens).mlp_input.flatten(0, 1)
    assert not torch.allclose(x, y, atol=0.1)
    parts = published_parts("circuit-tracer", tmp_path / "theirs")
    with pytest.raises(CltdbError, match=r"before (it multiplies by its gain|them since 3.0).* --model"):
        check_fits(parts, lm)
    ours = fitted(parts, lm, hook_normalized="before" if architecture in LAYER else None)
    assert ours.info["input_hook"] == "mlp.hook_in"
    ours = Dictionary.from_parts(ours)
    expected = theirs.encode(x)
    assert (expected > 0).any()
    torch.testing.assert_close(ours.encode(y), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.decode(expected, y), theirs.decode(expected, x), rtol=1e-4, atol=1e-5)
    after = Dictionary.from_parts(fitted(parts, lm, hook_normalized="after"))
    assert torch.equal(after.encode(y), theirs.encode(y)) and not torch.allclose(ours.encode(y), theirs.encode(y), atol=0.1)


def test_what_the_mlp_reads_itself_stays_as_it_is(tmp_path):
    published(tmp_path, hook="mlp.hook_in")
    parts = published_parts("circuit-tracer", tmp_path / "theirs")
    for architecture in ("gpt2", "gemma2"):
        assert fitted(parts, model(architecture)) is parts
    with pytest.raises(CltdbError, match="after for features that read mlp.hook_in"):
        fitted(parts, model("gpt2"), hook_normalized="after")


def relu_mlps(tmp_path, meaning):
    """(a GPT-2 whose MLPs are ReLU networks, these as the features of a plt that reads mlp.hook_in, the same saved as one that reads
    ln2.hook_normalized `after` or `before` gain and bias)."""
    lm = model("gpt2")
    for block in lm.blocks:
        block.mlp.act = torch.nn.ReLU()
        for part in (block.mlp.c_fc, block.mlp.c_proj):
            part.weight.data *= 10
            part.bias.data.normal_(generator=torch.Generator().manual_seed(3))
    read = [block.mlp.c_fc for block in lm.blocks]
    tensors = {"W_enc": torch.stack([part.weight.T for part in read]), "b_enc": torch.stack([part.bias for part in read])}
    tensors["b_dec"] = torch.stack([block.mlp.c_proj.bias for block in lm.blocks])
    tensors["W_dec"] = [block.mlp.c_proj.weight[:, None] for block in lm.blocks]
    tensors = {name: value if name == "W_dec" else value.detach().clone() for name, value in tensors.items()}
    ours = Dictionary(kind="plt", activation="relu", **tensors)
    if meaning == "before":  # <w, gain * n + bias>
        gain, bias = (
            torch.stack([side(block.mlp_norm).detach() for block in lm.blocks])[:, None] for side in (norm_gain, norm_bias)
        )
        tensors |= {"W_enc": ours.W_enc * gain, "b_enc": ours.b_enc + (ours.W_enc * bias).sum(-1)}
    info = {"mlp_input": "normed", "input_hook": "ln2.hook_normalized"}
    theirs = Dictionary(kind="plt", activation="relu", info=info, **tensors)
    save_published(theirs, "circuit-tracer", tmp_path / "theirs")
    return lm, ours


@pytest.mark.parametrize("meaning", ["after", "before"])
def test_a_little_text_tells_what_hook_normalized_of_a_layer_norm_means(tmp_path, meaning, caplog):
    lm, mlps = relu_mlps(tmp_path, meaning)
    parts = published_parts("circuit-tracer", tmp_path / "theirs")
    found = measured_fvu(parts, lm, [range(1, 60), [0, 7, 9, 0, 30]])
    assert found.pop(meaning) < 1e-6 and found.popitem()[1] > 0.1
    ours = Dictionary.from_parts(fitted(parts, lm))
    assert f"so it is taken as {meaning}" in caplog.text
    with_text = Dictionary.from_parts(fitted(parts, lm, tokens=lambda: torch.arange(1, 61).view(2, 30)))
    assert torch.equal(with_text.W_enc, ours.W_enc) and torch.equal(with_text.b_enc, ours.b_enc)
    captured = lm.run(torch.arange(30)[None])
    torch.testing.assert_close(ours.encode(captured.mlp_input), mlps.encode(captured.mlp_input), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.decode(ours.encode(captured.mlp_input)), captured.mlp_output, rtol=1e-4, atol=1e-4)
    other = {"after": "before", "before": "after"}[meaning]
    chosen = Dictionary.from_parts(fitted(parts, lm, hook_normalized=other))  # what is said is done, measured or not
    assert not torch.allclose(chosen.encode(captured.mlp_input), mlps.encode(captured.mlp_input), atol=0.1)


@pytest.mark.parametrize("format", ["circuit-tracer", "clt-forge", "saelens", "cltdb"])
def test_where_text_does_not_tell_nothing_is_guessed(tmp_path, format):
    """A random dictionary explains nothing, whatever it reads."""
    info = {"mlp_input": "normed", "input_hook": "ln2.hook_normalized", "imported": "somewhere"}
    save_published(dictionaries.random(kind="plt", dtype=torch.float32, info=info), format, tmp_path / "theirs")
    parts, lm = published_parts(format, tmp_path / "theirs"), model("gpt2")
    assert min(measured_fvu(parts, lm, [range(1, 60), [0, 7, 9, 0, 30]]).values()) > 1
    with pytest.raises(
        CltdbError, match=r"FVU on a little text \(.* after, .* before\) does not tell .* hook_normalized: after or"
    ):
        fitted(parts, lm)
    check_fits(fitted(parts, lm, hook_normalized="after"), lm)


@pytest.mark.parametrize("kind, said", [("plt", None), ("clt", "1 layers of width 16; expected the 2 layers")])
def test_single_layers_are_those_of_a_deeper_model_unless_they_write_to_later_ones(kind, said):
    parts, lm = dictionaries.random(kind=kind, n_layers=1, info={"layers": [0]}).parts(), model("gpt2")
    if said is None:
        check_fits(fitted(parts, lm), lm)
        return
    with pytest.raises(CltdbError, match=said):
        check_fits(fitted(parts, lm), lm)


def read_again(folder, lm, tokens, *, version):
    """Activations [token, layer, feature] of a circuit-tracer set by the description of its files, at the hook point that its settings name
    as TransformerLens of this version has it."""
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    own, normalized = lm.run(tokens).mlp_input.flatten(0, 1), before_gain(lm, tokens)
    old = normalized if version >= 3 or not is_centred(lm.blocks[0].mlp_norm) else own
    x = {"mlp.hook_in": own, "ln2.hook_normalized": old}[settings["feature_input_hook"]]
    out = []
    for layer in range(lm.n_layers):
        if settings["model_kind"] == "cross_layer_transcoder":
            tensors = load_file(folder / f"W_enc_{layer}.safetensors")
            W, b, threshold = (tensors.get(f"{name}_{layer}") for name in ("W_enc", "b_enc", "threshold"))
        else:
            tensors = load_file(folder / f"layer_{layer}.safetensors")
            W, b, threshold = (tensors.get(name) for name in ("W_enc", "b_enc", "activation_function.threshold"))
        h = x[:, layer] @ W.T + b
        if settings.get("activation") == "topk":
            kept = torch.zeros_like(h).scatter(1, h.topk(settings["k"], dim=1).indices, 1)
            out.append(h * kept)
        else:
            out.append(h.relu() if threshold is None else h * (h > threshold))
    return torch.stack(out, 1)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("kind", "activation"), [("clt", "batchtopk"), ("clt", "relu"), ("plt", "jumprelu"), ("plt", "topk")])
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama"])
def test_exported_features_are_the_same_in_every_version_of_transformer_lens(tmp_path, architecture, kind, activation, version):
    lm, tokens = model(architecture), torch.arange(20)[None]
    info = {"mlp_input": "normed", "input_hook": lm.input_hook}
    d = dictionaries.random(kind=kind, activation=activation, dtype=torch.float32, info=info)
    d.b_enc += 1  # so that more than k pre-activations are positive: circuit-tracer's top-k takes negative ones too
    save_published(d, "circuit-tracer", tmp_path / "there")
    again = read_again(tmp_path / "there", lm, tokens, version=version)
    expected = d.encode(lm.run(tokens).mlp_input.flatten(0, 1))
    assert (again > 0).any()
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-5)


def test_the_toy_world_exports_mlp_hook_in(tmp_path):
    """A LayerNorm model; "The capital of France is" had other features where the export said ln2.hook_normalized."""
    lm = load_model("toyworld", device="cpu")
    assert is_centred(lm.blocks[0].mlp_norm) and lm.input_hook == "mlp.hook_in"
    d = dictionaries.random(kind="plt", dtype=torch.float32, info={"mlp_input": "normed", "input_hook": lm.input_hook})
    save_published(d, "saelens", tmp_path)
    names = [json.loads((tmp_path / f"layer_{n}/cfg.json").read_text())["metadata"]["hook_name"] for n in range(2)]
    assert names == ["blocks.0.mlp.hook_in", "blocks.1.mlp.hook_in"]


def test_old_dictionaries_that_cltdb_trained_read_the_mlps_own_input(tmp_path):
    d = dictionaries.random(dtype=torch.float32, info={"mlp_input": "normed"})
    for name, more in (("trained", {}), ("imported", {"imported": "circuit-tracer"})):
        d.save(tmp_path / name)
        path = tmp_path / name / "dictionary.json"
        header = json.loads(path.read_text()) | {"format_version": 1, "input_hook": "ln2.hook_normalized", "note": "x"} | more
        path.write_text(json.dumps(header))
    check_fits(load_dictionary(tmp_path / "trained"), model("gpt2"))
    save_published(load_dictionary(tmp_path / "trained"), "circuit-tracer", tmp_path / "there")
    assert yaml.safe_load((tmp_path / "there/config.yaml").read_text())["feature_input_hook"] == "mlp.hook_in"
    with pytest.raises(CltdbError, match="hook_normalized, of a LayerNorm after gain and bias up to TransformerLens 2"):
        check_fits(load_dictionary(tmp_path / "imported"), model("gpt2"))


@pytest.mark.parametrize(("architecture", "option"), [("llama", None), ("gpt2", "before")])
def test_a_gain_of_zero_is_refused(tmp_path, architecture, option):
    published(tmp_path)
    lm = model(architecture)
    lm.blocks[1].mlp_norm.weight.data[3] = 0
    with pytest.raises(CltdbError, match=r"layer 1: .* a gain of 0"):
        fitted(published_parts("circuit-tracer", tmp_path / "theirs"), lm, hook_normalized=option)


def test_the_import_command_folds_the_gain_of_the_model_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    theirs, tokens = published(tmp_path), torch.arange(20)[None]
    lm = model("llama")
    lm.hf.save_pretrained("model")
    lm.tokenizer.save_pretrained("model")
    assert main(["import", "circuit-tracer", "theirs", "-o", "ours", "--model", "model"]) == 0
    ours = load_dictionary("ours")
    check_fits(ours, lm)
    x, y = before_gain(lm, tokens), lm.run(tokens).mlp_input.flatten(0, 1)
    torch.testing.assert_close(ours.encode(y), theirs.encode(x), rtol=1e-4, atol=1e-5)
    assert main(["import", "circuit-tracer", "theirs", "-o", "plain"]) == 0
    assert main(["import", "circuit-tracer", "theirs", "-o", "own", "--hook-normalized", "after"]) == 0
    assert load_dictionary("own").info["input_hook"] == "mlp.hook_in"
    assert main(["import", "circuit-tracer", "theirs", "-o", "x", "--hook-normalized", "before"]) == 1
    assert "add --model" in capsys.readouterr().err and not Path("x").exists()
    assert main(["import", "graph-json", "g.json", "--model", "model"]) == 1 and "--model" in capsys.readouterr().err


def test_outputs_before_a_norm_are_refused_where_there_is_one():
    d = dictionaries.random(dtype=torch.float32, info=output_of("blocks.1.mlp.hook_out", "file"))
    check_fits(d, model("llama"))
    with pytest.raises(CltdbError, match="the MLP's output before its norm"):
        check_fits(d, model("gemma2"))
    with pytest.raises(CltdbError, match="features that write blocks.0.hook_attn_out"):
        output_of("blocks.0.hook_attn_out", "file")


@pytest.mark.parametrize(
    ("hook", "mlp_input"),
    [("ln2.hook_normalized", "normed"), ("mlp.hook_in", "normed"), ("hook_mlp_in", "residual"), ("hook_resid_mid", "residual")],
)
def test_hook_points_by_name(hook, mlp_input):
    assert input_of(f"blocks.3.{hook}", "file") == input_of(hook, "file") == {"mlp_input": mlp_input, "input_hook": hook}


@pytest.mark.parametrize(
    ("architecture", "here", "elsewhere"),
    [("gpt2", "hook_resid_mid", "hook_resid_pre"), ("gpt_neox", "hook_resid_pre", "hook_resid_mid")],
)
def test_the_residual_stream_is_read_where_the_mlp_reads_it(architecture, here, elsewhere):
    lm = models.language_model(architecture)
    lm.mlp_input = "residual"
    for hook in (here, "hook_mlp_in"):
        check_fits(dictionaries.random(dtype=torch.float32, info=input_of(hook, "file")), lm)
    with pytest.raises(CltdbError, match=f"features that read {elsewhere}; expected {here}"):
        check_fits(dictionaries.random(dtype=torch.float32, info=input_of(elsewhere, "file")), lm)


def test_the_module_of_transformers_says_more_than_the_hook_point(tmp_path):
    saelens_layer(tmp_path / "layer", 0, hook="hook_mlp_in")
    settings = json.loads((tmp_path / "layer/cfg.json").read_text())
    assert load_published("saelens", tmp_path).info["mlp_input"] == "residual"
    settings["metadata"]["hf_hook_name"] = "model.layers.0.pre_feedforward_layernorm.output"
    (tmp_path / "layer/cfg.json").write_text(json.dumps(settings))
    assert load_published("saelens", tmp_path).info["input_hook"] == "mlp.hook_in"


def test_a_model_names_what_its_features_read():
    assert {models.language_model(name).input_hook for name in models.ARCHITECTURES} == {"mlp.hook_in"}


def test_clt_forge_has_no_place_for_a_gain(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    d = dictionaries.random(dtype=torch.float32, info={"mlp_input": "normed", "input_hook": "mlp.hook_in"})
    with pytest.raises(CltdbError, match="features that read mlp.hook_in; expected ln2.hook_normalized"):
        save_published(d, "clt-forge", tmp_path / "x")
    models.saved(Path("layer"), "gpt2"), models.saved(Path("rms"), "llama")
    save_published(d, "clt-forge", tmp_path / "y", hook_normalized="after", model="layer")
    assert torch.equal(load_published("clt-forge", tmp_path / "y").W_enc, d.W_enc)
    d.save("mine")
    assert main(["export", "clt-forge", "mine", "-o", "z"]) == 1 and "--hook-normalized after" in capsys.readouterr().err
    assert main(["export", "circuit-tracer", "mine", "-o", "z", "--hook-normalized", "after"]) == 1 and not Path("z").exists()
    after = ["export", "clt-forge", "mine", "-o", "z", "--hook-normalized", "after"]
    for model, said in (
        ([], "found a dictionary that names no model; expected a model with LayerNorms"),
        (["--model", "rms"], "found after, of rms, whose RMSNorms have ln2.hook_normalized before the gain"),
        (["--model", "./gone"], "no such directory"),
    ):
        assert main([*after, *model]) == 1 and said in capsys.readouterr().err and not Path("z").exists()
    d.info["model_id"] = "rms"
    d.save("named")
    assert main([*after[:2], "named", *after[3:]]) == 1 and "of rms, whose RMSNorms" in capsys.readouterr().err.replace(
        str(tmp_path) + "/", ""
    )
    assert main([*after, "--model", "layer"]) == 0 and Path("z/clt_cfg.json").is_file()
