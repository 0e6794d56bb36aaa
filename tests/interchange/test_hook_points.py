"""What a published dictionary reads and writes: TransformerLens has an RMSNorm's hook_normalized before its gain."""

import json

import fakes
import pytest
import torch
from test_interchange import saelens_layer

from cltdb.__main__ import main
from cltdb.errors import CltdbError
from cltdb.interchange import load_published, published_parts, save_published
from cltdb.interchange.hook_points import fold_gain, input_of, output_of
from cltdb.model.norms import norm_scale
from cltdb.model.transcoder import check_fits, load_dictionary

RMS = [name for name in fakes.ARCHITECTURES if name not in ("gpt2", "gpt_neox")]


def model(architecture, seed=0):
    """A random model whose norms have gains of their own; a fresh one's are all 1."""
    lm = fakes.language_model(architecture)
    generator = torch.Generator().manual_seed(seed)
    for block in lm.blocks:
        for parameter in block.mlp_norm.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return lm


def before_gain(lm, tokens):
    """MLP inputs [token, layer, d_model] as TransformerLens's RMSNorm has them at hook_normalized."""
    seen = []
    hooks = [
        block.mlp_norm.register_forward_pre_hook(lambda norm, args: seen.append(args[0] * norm_scale(norm, args[0])))
        for block in lm.blocks
    ]
    lm.run(tokens)
    for hook in hooks:
        hook.remove()
    return torch.stack(seen, 2).flatten(0, 1)


def published(tmp_path, kind="plt", skip=True, hook="ln2.hook_normalized"):
    d = fakes.dictionary(kind=kind, skip=skip, dtype=torch.float32, info={"mlp_input": "normed", "input_hook": hook})
    save_published(d, "circuit-tracer", tmp_path / "theirs")
    return d


@pytest.mark.parametrize("architecture", RMS)
def test_gains_go_into_encoders_that_read_what_comes_before_them(tmp_path, architecture):
    theirs, lm, tokens = published(tmp_path), model(architecture), torch.arange(20)[None]
    x, y = before_gain(lm, tokens), lm.run(tokens).mlp_input.flatten(0, 1)
    assert not torch.allclose(x, y, atol=0.1)
    parts = published_parts("circuit-tracer", tmp_path / "theirs")
    with pytest.raises(CltdbError, match=r"before it multiplies by its gain.* --model"):
        check_fits(parts, lm)
    ours = fold_gain(parts, lm)
    check_fits(ours, lm)
    ours = ours.together()
    expected = theirs.encode(x)
    assert (expected > 0).any()
    torch.testing.assert_close(ours.encode(y), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.decode(expected, y), theirs.decode(expected, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("architecture", "hook"), [("gpt2", "ln2.hook_normalized"), ("gemma2", "mlp.hook_in")])
def test_what_the_mlp_reads_itself_stays_as_it_is(tmp_path, architecture, hook):
    published(tmp_path, hook=hook)
    parts, lm = published_parts("circuit-tracer", tmp_path / "theirs"), model(architecture)
    assert parts.info["input_hook"] == hook and fold_gain(parts, lm) is parts
    check_fits(parts, lm)


def test_a_gain_of_zero_is_refused(tmp_path):
    published(tmp_path)
    lm = model("llama")
    lm.blocks[1].mlp_norm.weight.data[3] = 0
    with pytest.raises(CltdbError, match=r"layer 1: .* a gain of 0"):
        fold_gain(published_parts("circuit-tracer", tmp_path / "theirs"), lm)


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
    assert main(["import", "graph-json", "g.json", "--model", "model"]) == 1 and "--model" in capsys.readouterr().err


def test_outputs_before_a_norm_are_refused_where_there_is_one():
    d = fakes.dictionary(dtype=torch.float32, info=output_of("blocks.1.mlp.hook_out", "file"))
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
    lm = fakes.language_model(architecture)
    lm.mlp_input = "residual"
    for hook in (here, "hook_mlp_in"):
        check_fits(fakes.dictionary(dtype=torch.float32, info=input_of(hook, "file")), lm)
    with pytest.raises(CltdbError, match=f"features that read {elsewhere}; expected {here}"):
        check_fits(fakes.dictionary(dtype=torch.float32, info=input_of(elsewhere, "file")), lm)


def test_the_module_of_transformers_says_more_than_the_hook_point(tmp_path):
    saelens_layer(tmp_path / "layer", 0, hook="hook_mlp_in")
    settings = json.loads((tmp_path / "layer/cfg.json").read_text())
    assert load_published("saelens", tmp_path).info["mlp_input"] == "residual"
    settings["metadata"]["hf_hook_name"] = "model.layers.0.pre_feedforward_layernorm.output"
    (tmp_path / "layer/cfg.json").write_text(json.dumps(settings))
    assert load_published("saelens", tmp_path).info["input_hook"] == "mlp.hook_in"


def test_a_model_names_what_its_features_read():
    names = {name: fakes.language_model(name).input_hook for name in fakes.ARCHITECTURES}
    assert {name for name, hook in names.items() if hook == "mlp.hook_in"} == {*RMS}
    assert {names["gpt2"], names["gpt_neox"]} == {"ln2.hook_normalized"}


def test_clt_forge_has_no_place_for_a_gain(tmp_path):
    d = fakes.dictionary(dtype=torch.float32, info={"mlp_input": "normed", "input_hook": "mlp.hook_in"})
    with pytest.raises(CltdbError, match="features that read mlp.hook_in; expected ln2.hook_normalized"):
        save_published(d, "clt-forge", tmp_path / "x")
