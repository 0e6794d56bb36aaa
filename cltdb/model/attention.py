"""The attention of one layer as tensors and numbers, the same for every family: `attention_parts`."""

from operator import attrgetter
from typing import NamedTuple

import torch


class Rotary(NamedTuple):
    """Rotary position embedding. Of a query or key at position p, channels i and n + i turn by the angle p * frequencies[i], for i < n,
    and are multiplied by `amplitude`; channels from 2n on stay as they are.

    frequencies [n], float32, radians per position, scaled already. fraction: 2n / d_head. theta: base of the unscaled frequencies,
    theta^(-i / n). scaling: its name in transformers (default, linear, llama3, yarn, ...); of `dynamic` and `longrope`, which depend on
    the prompt's length, the frequencies are those of the last run.
    """

    frequencies: torch.Tensor
    amplitude: float
    fraction: float
    theta: float
    scaling: str


class AttentionParts(NamedTuple):
    """Attention of one layer. x [pos, d_model] is the output of the attention norm; query head h reads key-value head h // (n_heads /
    n_kv_heads):

        q, k, v = x W_Q + b_Q, x W_K + b_K, x W_V + b_V     [pos, d_head] for each head
        q, k = rotary(query_norm(q)), rotary(key_norm(k))   where there are such
        score = scaling * q . k, then softcap * tanh(score / softcap) where there is a soft-cap
        pattern = softmax of score over the keys with 0 <= query position - key position < window (None: no bound)
        output = b_O + sum over heads of pattern v W_O      [pos, d_model], before a norm of attention's output

    W_Q [head, d_model, d_head], W_K, W_V [kv head, d_model, d_head], W_O [head, d_head, d_model]; b_Q [head, d_head], b_K, b_V
    [kv head, d_head], b_O [d_model], zero where the family has none. They are views of the model's parameters. query_norm, key_norm:
    modules over d_head channels, for the functions of norms.py.
    """

    W_Q: torch.Tensor
    W_K: torch.Tensor
    W_V: torch.Tensor
    W_O: torch.Tensor
    b_Q: torch.Tensor
    b_K: torch.Tensor
    b_V: torch.Tensor
    b_O: torch.Tensor
    rotary: Rotary | None
    query_norm: torch.nn.Module | None
    key_norm: torch.nn.Module | None
    scaling: float
    softcap: float | None
    window: int | None


def attention_parts(lm, layer):
    """The `AttentionParts` of a layer of a `LanguageModel`."""
    family, attention = lm.family, lm.blocks[layer].attention
    tensors = family.projections(attention)
    for side in "QKVO":
        if tensors[f"b_{side}"] is None:
            W = tensors[f"W_{side}"]
            tensors[f"b_{side}"] = W.new_zeros(W.shape[2]) if side == "O" else W.new_zeros(W.shape[0], W.shape[2])
    optional = {
        name: getattr(family, name) and attrgetter(getattr(family, name))(attention)
        for name in ("query_norm", "key_norm", "softcap", "window")
    }
    return AttentionParts(
        **tensors, rotary=_rotary(lm, layer, d_head=tensors["W_Q"].shape[2]), scaling=attention.scaling, **optional
    )


def _rotary(lm, layer, *, d_head):
    if lm.rotary is None:
        return None
    config, prefix = lm.rotary.config, ""
    settings = config.rope_parameters
    if lm.family.rotary_by_layer_type:
        settings, prefix = settings[config.layer_types[layer]], f"{config.layer_types[layer]}_"
    frequencies = getattr(lm.rotary, f"{prefix}inv_freq")
    return Rotary(
        frequencies=frequencies,
        amplitude=getattr(lm.rotary, f"{prefix}attention_scaling"),
        fraction=2 * len(frequencies) / d_head,
        theta=settings["rope_theta"],
        scaling=settings["rope_type"],
    )
