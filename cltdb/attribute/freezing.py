"""Frozen attention patterns and norm denominators of one prompt: what makes a transformer linear between its MLPs.

`record` runs nothing itself: within its block the model notes its patterns and scales; within `frozen` it uses them.
Attention goes through transformers' AttentionInterface, norms through forward hooks. Both leave the model as it was,
also after an exception.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch

from cltdb.errors import CltdbError

SUPPORTED = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")
ATTENTION = "cltdb_frozen"
_attention_of = {}  # attention module -> _Attention, while a block below holds it


class Constants(NamedTuple):
    """patterns: per layer [1, head, pos, pos]. scales: per norm module, by name, one over its denominator [1, pos, …,
    1]."""

    patterns: list
    scales: dict

    def to(self, dtype):
        return Constants(
            [pattern.to(dtype) for pattern in self.patterns],
            {name: scale.to(dtype) for name, scale in self.scales.items()},
        )


class _Attention:
    """The pattern an attention module uses, or None while it is to be noted."""

    def __init__(self, pattern=None):
        self.pattern = pattern


def check_supported(lm):
    """Refuses a model whose attention or norms the replacement model does not know."""
    if lm.architecture not in SUPPORTED:
        raise CltdbError(
            f"attribution of {lm.model_id}",
            found=f"architecture {lm.architecture!r}",
            expected="one of " + ", ".join(SUPPORTED),
            do="choose a model of these; the stages before attribute work on it as it is",
        )


def _attend(module, query, key, value, attention_mask, scaling=None, softcap=None, **_):
    """Attention with the pattern at hand, which is noted first where there is none.

    query [batch, head, pos, d_head], key and value with as many heads or fewer, to [batch, pos, head, d_head].
    """
    state = _attention_of[module]
    groups = query.shape[1] // value.shape[1]
    if state.pattern is None:
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query @ key.repeat_interleave(groups, dim=1).transpose(-1, -2) * scaling
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if attention_mask is not None:
            scores = scores + attention_mask
        state.pattern = torch.softmax(scores, dim=-1).detach()
    return (state.pattern @ value.repeat_interleave(groups, dim=1)).transpose(1, 2), state.pattern


@contextmanager
def _attention(lm, states):
    """Within the block, attention of layer l goes through `states[l]`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    modules = [block.attention for block in lm.blocks]
    configs = {id(module.config): module.config for module in lm.hf.modules() if hasattr(module, "config")}.values()
    before = [(config, config._attn_implementation) for config in configs]
    try:
        _attention_of.update(zip(modules, states, strict=True))
        for config, _ in before:
            config._attn_implementation = ATTENTION
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
        for module in modules:
            _attention_of.pop(module, None)


def _norms(lm):
    """(name, module) of every LayerNorm and RMSNorm but those whose output is an MLP output, which is replaced."""
    mlp_outputs = {block.mlp_output for block in lm.blocks}
    return [
        (name, module)
        for name, module in lm.hf.named_modules()
        if (isinstance(module, torch.nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")) and module not in mlp_outputs
    ]


def _scale(norm, x):
    """One over the denominator of `norm` at x, [..., 1]."""
    if isinstance(norm, torch.nn.LayerNorm):
        return torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + norm.eps)
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _scaled(norm, x, scale):
    """`norm` of x with its denominator given: an affine function of x."""
    if isinstance(norm, torch.nn.LayerNorm):
        normed = (x - x.mean(-1, keepdim=True)) * scale
        normed = normed if norm.weight is None else normed * norm.weight
        return normed if norm.bias is None else normed + norm.bias
    gain = 1 + norm.weight if type(norm).__name__.startswith("Gemma") else norm.weight
    return x * scale * gain


@contextmanager
def hooks(modules, hook_of):
    """Forward hooks `hook_of(name, module)` on (name, module) pairs within the block."""
    handles = []
    try:
        for name, module in modules:
            handles.append(module.register_forward_hook(hook_of(name, module)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record(lm):
    """Yields a function that returns the `Constants` of the one forward pass made within the block."""
    check_supported(lm)
    states, scales = [_Attention() for _ in lm.blocks], {}

    def note(name, module):
        return lambda _, args, output: scales.__setitem__(name, _scale(module, args[0]).detach())

    with _attention(lm, states), hooks(_norms(lm), note):
        yield lambda: Constants([state.pattern for state in states], scales)


@contextmanager
def frozen(lm, constants, *, norms=True):
    """Within the block, forward passes over the prompt's positions use its patterns and, with `norms`, its scales."""

    def fix(name, module):
        return lambda _, args, output: _scaled(module, args[0], constants.scales[name])

    with (
        _attention(lm, [_Attention(pattern) for pattern in constants.patterns]),
        hooks(_norms(lm) if norms else [], fix),
    ):
        yield
