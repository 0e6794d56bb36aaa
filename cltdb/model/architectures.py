"""All that differs between model families. A family is one entry of ARCHITECTURES; no other file knows one by its name.

An entry says where the parts of a model are. norms.py, attention.py, language_model.py and weights.py read it.
Source of every entry: the family's modeling file in transformers.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from cltdb.errors import CltdbError


class Norm(NamedTuple):
    """The norms of a family: the name of their class, of the attribute that holds epsilon; whether the mean over channels is taken off;
    what is added to the stored weight to make the gain."""

    class_name: str
    epsilon: str
    centred: bool = False
    gain_offset: int = 0


class MLPNeurons(NamedTuple):
    """The neurons of an MLP. output: the module that reads their values; W_in [d_mlp, d_model]: what each one's nonlinearity reads;
    W_out [d_mlp, d_model]: what each one writes."""

    output: torch.nn.Module
    W_in: torch.Tensor
    W_out: torch.Tensor


class Architecture(NamedTuple):
    """One family. Three kinds of names: paths of modules from the text model, paths of modules from one of its blocks, and attributes,
    dotted where they lie deeper."""

    name: str
    """What artifacts and the database call the family."""

    blocks: str
    """From the text model: the list of blocks."""
    embedding: str
    final_norm: str

    attention_norm: str
    """From a block: the norm before attention."""
    attention: str
    mlp_norm: str
    mlp: str
    mlp_output: str
    """The module whose output the block adds to the residual stream: the MLP, or a norm after it."""
    attention_output: str
    """As mlp_output, of attention."""

    norm: Norm
    projections: Callable[[torch.nn.Module], dict]
    """From the attention module to {W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O} as `AttentionParts` has them; a bias is None where there is
    none."""
    neurons: Callable[[torch.nn.Module], MLPNeurons]
    """From the MLP module to its neurons. Their values are the nonlinearity's, in gated MLPs times what it gates."""

    text_model: str = ""
    """Path of the text model from the base model of a causal language model; empty where it is that itself."""
    positions: str | None = None
    """From the text model: the learned position embeddings that are added to those of tokens; None where there are none."""
    rotary: str | None = None
    """From the text model: the rotary position embedding, which all blocks share."""
    rotary_by_layer_type: bool = False
    """Whether the rotary embedding differs between kinds of layers (sliding, full)."""
    query_norm: str | None = None
    """From the attention module: the norm over each query's d_head channels, before the rotary embedding."""
    key_norm: str | None = None
    window: str | None = None
    """Attribute of the attention module: the sliding window in tokens, or None in layers that see everything before."""
    softcap: str | None = None
    """Attribute of the attention module: the soft-cap of attention scores."""
    logit_softcap: str | None = None
    """Attribute of the text model's config: the soft-cap of logits."""
    parallel: str | None = None
    """Attribute of the config that says whether the MLP reads what attention reads; None: it reads what attention leaves."""


def _one_matrix(attention):
    """GPT-2: queries, keys and values side by side in one matrix [d_model, 3 * head * d_head]."""
    n_heads = attention.num_heads
    W = [part.unflatten(1, (n_heads, -1)).transpose(0, 1) for part in attention.c_attn.weight.chunk(3, dim=1)]
    b = [part.unflatten(0, (n_heads, -1)) for part in attention.c_attn.bias.chunk(3)]
    output = {"W_O": attention.c_proj.weight.unflatten(0, (n_heads, -1)), "b_O": attention.c_proj.bias}
    return dict(zip(("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V"), [*W, *b], strict=True)) | output


def _head_by_head(attention):
    """GPT-NeoX: one matrix [head * 3 * d_head, d_model], in it the query, key and value of one head after those of another."""
    d_head, fused, output = attention.head_size, attention.query_key_value, attention.dense
    W = fused.weight.unflatten(0, (-1, 3, d_head)).transpose(-1, -2)
    b = [None] * 3 if fused.bias is None else fused.bias.unflatten(0, (-1, 3, d_head)).unbind(1)
    return {
        **dict(zip(("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V"), [*W.unbind(1), *b], strict=True)),
        "W_O": output.weight.T.unflatten(0, (-1, d_head)),
        "b_O": output.bias,
    }


def _four_matrices(attention):
    """Llama and its descendants: four matrices [head * d_head, d_model], those of keys and values with fewer heads."""
    found = {"W_O": attention.o_proj.weight.T.unflatten(0, (-1, attention.head_dim)), "b_O": attention.o_proj.bias}
    for name, module in (("Q", attention.q_proj), ("K", attention.k_proj), ("V", attention.v_proj)):
        found[f"W_{name}"] = module.weight.unflatten(0, (-1, attention.head_dim)).transpose(1, 2)
        found[f"b_{name}"] = None if module.bias is None else module.bias.unflatten(0, (-1, attention.head_dim))
    return found


def _gpt2_neurons(mlp):
    return MLPNeurons(mlp.c_proj, mlp.c_fc.weight.T, mlp.c_proj.weight)


def _neox_neurons(mlp):
    return MLPNeurons(mlp.dense_4h_to_h, mlp.dense_h_to_4h.weight, mlp.dense_4h_to_h.weight.T)


def _gated_neurons(mlp):
    return MLPNeurons(mlp.down_proj, mlp.gate_proj.weight, mlp.down_proj.weight.T)


_LAYER_NORM = Norm("LayerNorm", "eps", centred=True)
_LLAMA = Architecture(
    name="llama",
    blocks="layers",
    embedding="embed_tokens",
    final_norm="norm",
    attention_norm="input_layernorm",
    attention="self_attn",
    mlp_norm="post_attention_layernorm",
    mlp="mlp",
    mlp_output="mlp",
    attention_output="self_attn",
    norm=Norm("LlamaRMSNorm", "variance_epsilon"),
    projections=_four_matrices,
    neurons=_gated_neurons,
    rotary="rotary_emb",
)
_GEMMA2 = _LLAMA._replace(
    name="gemma2",
    mlp_norm="pre_feedforward_layernorm",
    mlp_output="post_feedforward_layernorm",
    attention_output="post_attention_layernorm",
    norm=Norm("Gemma2RMSNorm", "eps", gain_offset=1),
    window="sliding_window",
    softcap="attn_logit_softcapping",
    logit_softcap="final_logit_softcapping",
)
_GEMMA3 = _GEMMA2._replace(
    name="gemma3",
    norm=Norm("Gemma3RMSNorm", "eps", gain_offset=1),
    rotary_by_layer_type=True,
    query_norm="q_norm",
    key_norm="k_norm",
    softcap=None,  # its attention has the attribute, but does not use it
)
ARCHITECTURES = {
    "gpt2": Architecture(
        name="gpt2",
        blocks="h",
        embedding="wte",
        final_norm="ln_f",
        attention_norm="ln_1",
        attention="attn",
        mlp_norm="ln_2",
        mlp="mlp",
        mlp_output="mlp",
        attention_output="attn",
        norm=_LAYER_NORM,
        projections=_one_matrix,
        neurons=_gpt2_neurons,
        positions="wpe",
    ),
    "gpt_neox": Architecture(
        name="gpt_neox",
        blocks="layers",
        embedding="embed_in",
        final_norm="final_layer_norm",
        attention_norm="input_layernorm",
        attention="attention",
        mlp_norm="post_attention_layernorm",
        mlp="mlp",
        mlp_output="mlp",
        attention_output="attention",
        norm=_LAYER_NORM,
        projections=_head_by_head,
        neurons=_neox_neurons,
        rotary="rotary_emb",
        parallel="use_parallel_residual",
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA._replace(name="mistral", norm=Norm("MistralRMSNorm", "variance_epsilon"), window="config.sliding_window"),
    "qwen2": _LLAMA._replace(name="qwen2", norm=Norm("Qwen2RMSNorm", "variance_epsilon"), window="sliding_window"),
    "qwen3": _LLAMA._replace(
        name="qwen3",
        norm=Norm("Qwen3RMSNorm", "variance_epsilon"),
        window="sliding_window",
        query_norm="q_norm",
        key_norm="k_norm",
    ),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma3": _GEMMA3._replace(text_model="language_model", logit_softcap=None),  # the text beside towers for images
}
"""{model_type of config.json: its family}."""
NORMS = {family.norm.class_name: family.norm for family in ARCHITECTURES.values()}


def family_of(config, where="model"):
    """The `Architecture` of a config; CltdbError where it is none of ARCHITECTURES."""
    if config.model_type not in ARCHITECTURES:
        raise CltdbError(
            where,
            found=f"architecture {config.model_type!r}",
            expected="one of " + ", ".join(ARCHITECTURES),
            do="choose a model of a supported architecture",
        )
    return ARCHITECTURES[config.model_type]


def is_mlp_input(path):
    """Whether the side of a module that `path` names, such as h.3.ln_2.output, is what an MLP reads in every family that has the module."""
    *_, module, side = ["", *path.split(".")]
    if side == "input":
        return any(module == family.mlp for family in ARCHITECTURES.values())
    roles = {role for family in ARCHITECTURES.values() for role, name in family._asdict().items() if name == module}
    return side == "output" and roles == {"mlp_norm"}
