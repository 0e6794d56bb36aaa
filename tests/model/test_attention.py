"""The parts of attention against transformers: output and pattern of every layer of every family, made from the parts with plain torch."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from worlds import models

from cltdb.model.attention import attention_parts
from cltdb.model.language_model import LanguageModel
from cltdb.model.norms import norm_gain, norm_scale

TOKENS = torch.tensor([[0, *range(3, 40, 2)]])
SETTINGS = {  # what makes the parts that a family has differ from nothing; layers are sliding and full in turn where it can be said
    "gpt2": [{}, {"scale_attn_by_inverse_layer_idx": True}],
    "gpt_neox": [{}, {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}}],
    "llama": [
        {"attention_bias": True},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}},
    ],
    "mistral": [{"sliding_window": None}, {"sliding_window": 5}],
    "qwen2": [{}, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}],
    "qwen3": [{}, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}],
    "gemma2": [
        {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 3, "sliding_window": 5},
        {"attn_logit_softcapping": None},
    ],
    "gemma3_text": [{"query_pre_attn_scalar": 3, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}],
}


def model(architecture, settings):
    """A random model with biases, gains and patterns that are not 0, 1 and uniform."""
    hf = models.hf_model(architecture, **settings)
    hf.set_attn_implementation("eager")
    for parameter in hf.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return LanguageModel(hf, models.byte_tokenizer(), model_id=architecture)


def normed(norm, x):
    return x if norm is None else x * norm_scale(norm, x) * norm_gain(norm)


def rotated(rotary, x):
    """x [head, pos, d_head]."""
    if rotary is None:
        return x
    n = len(rotary.frequencies)
    angle = torch.arange(x.shape[1])[:, None] * rotary.frequencies
    turn = torch.polar(torch.full_like(angle, rotary.amplitude), angle)
    turned = torch.complex(x[..., :n], x[..., n : 2 * n]) * turn
    return torch.cat([turned.real, turned.imag, x[..., 2 * n :]], dim=-1)


def attention(parts, x):
    """(output [pos, d_model], pattern [head, pos, pos]) of x [pos, d_model], as the docstring of `AttentionParts` has it."""
    q, k, v = (x @ W + b[:, None] for W, b in ((parts.W_Q, parts.b_Q), (parts.W_K, parts.b_K), (parts.W_V, parts.b_V)))
    q, k = rotated(parts.rotary, normed(parts.query_norm, q)), rotated(parts.rotary, normed(parts.key_norm, k))
    reads = torch.arange(len(q)) // (len(q) // len(k))
    score = parts.scaling * q @ k[reads].transpose(1, 2)
    if parts.softcap is not None:
        score = parts.softcap * torch.tanh(score / parts.softcap)
    back = torch.arange(len(x))[:, None] - torch.arange(len(x))
    seen = (back >= 0) & (back < (len(x) if parts.window is None else parts.window))
    pattern = score.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hqk,hkd,hdm->qm", pattern, v[reads], parts.W_O) + parts.b_O, pattern


@pytest.mark.parametrize(
    ("architecture", "settings"), [(name, settings) for name in models.ARCHITECTURES for settings in SETTINGS[name]]
)
def test_output_and_pattern_made_from_the_parts_are_those_of_transformers(architecture, settings):
    lm, seen = model(architecture, settings), {}
    for layer, block in enumerate(lm.blocks):
        keep = lambda _, args, kwargs, out, layer=layer: seen.update({layer: ((*args, *kwargs.values())[0], out[0])})  # noqa: E731
        block.attention.register_forward_hook(keep, with_kwargs=True)
    patterns = lm.hf(input_ids=TOKENS, output_attentions=True).attentions
    for layer, (x, output) in seen.items():
        parts = attention_parts(lm, layer)
        n_heads, n_kv = lm.hf.config.num_attention_heads, getattr(lm.hf.config, "num_key_value_heads", 4)
        assert parts.W_Q.shape == (n_heads, lm.d_model, parts.b_Q.shape[1]) and parts.W_K.shape[0] == parts.W_V.shape[0] == n_kv
        made, pattern = attention(parts, x[0])
        assert pattern.std() > 0.02
        torch.testing.assert_close(pattern, patterns[layer][0], rtol=0, atol=2e-6)
        torch.testing.assert_close(made, output[0], rtol=1e-5, atol=1e-5)


def test_what_a_family_has_is_among_its_parts():
    """The settings above reach the parts: without this, a part that nobody reads would pass unnoticed."""
    found = {(name, n): attention_parts(model(name, s), 1) for name in SETTINGS for n, s in enumerate(SETTINGS[name])}
    assert [key for key, parts in found.items() if parts.rotary is None] == [("gpt2", 0), ("gpt2", 1)]
    assert {name for (name, _), parts in found.items() if parts.query_norm and parts.key_norm} == {"qwen3", "gemma3_text"}
    windows = {("mistral", 1), ("qwen2", 1), ("qwen3", 1)}
    assert {key for key, parts in found.items() if parts.window is not None} == windows
    first = attention_parts(model("gemma2", SETTINGS["gemma2"][0]), 0)
    assert (first.window, first.softcap, first.scaling) == (5, 0.5, 3**-0.5) and found["gemma2", 1].softcap is None
    assert attention_parts(model("gemma3_text", SETTINGS["gemma3_text"][0]), 0).rotary.theta == 10_000
    assert found["gemma3_text", 0].rotary.theta == 1_000_000
    assert found["gpt_neox", 1].rotary[2:] == (0.5, 500.0, "default")
    assert found["llama", 1].rotary[3:] == (100.0, "yarn") and found["llama", 1].rotary.amplitude > 1
    assert found["gpt2", 0].scaling == 2 * found["gpt2", 1].scaling


def test_parts_are_views_of_the_model():
    for name in models.ARCHITECTURES:
        lm = models.language_model(name)
        held = {parameter.untyped_storage().data_ptr() for parameter in lm.hf.parameters()}
        parts = attention_parts(lm, 0)
        assert all(W.untyped_storage().data_ptr() in held for W in (parts.W_Q, parts.W_K, parts.W_V, parts.W_O)), name


def test_the_text_beside_the_towers_of_gemma_3_has_the_same_parts():
    text = models.hf_model("gemma3_text", **SETTINGS["gemma3_text"][0])
    seeing = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)
    config = AutoConfig.for_model("gemma3", text_config=text.config.to_dict(), vision_config=seeing, mm_tokens_per_image=4)
    whole = AutoModelForCausalLM.from_config(config)
    whole.base_model.language_model.load_state_dict(text.base_model.state_dict())
    for layer in range(2):
        found, expected = (
            attention_parts(LanguageModel(hf, models.byte_tokenizer(), model_id="gemma"), layer) for hf in (whole, text)
        )
        for name, value, same in zip(found._fields, found, expected, strict=True):
            if name == "rotary":
                assert torch.equal(value.frequencies, same.frequencies) and value[1:] == same[1:]
            elif isinstance(value, torch.nn.Module):
                assert torch.equal(value.weight, same.weight), name
            else:
                assert torch.equal(value, same) if torch.is_tensor(value) else value == same, name
