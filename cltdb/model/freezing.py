"""Frozen attention patterns and norm denominators of one prompt: what makes a transformer linear between its MLPs.

Within the block of `record`, a forward pass notes its patterns and scales; within that of `frozen`, forward passes use them.
Attention goes through transformers' AttentionInterface, norms through forward hooks. After a block the model is as it was, also
after an exception.
"""

import sys
from contextlib import contextmanager
from typing import NamedTuple

import torch

from cltdb.model.norms import is_centred, is_norm, norm_scale, times_gain

ATTENTION = "cltdb_frozen"
_attention_of = {}  # attention module -> _Attention, while a block below holds it


class Constants(NamedTuple):
    """patterns: per layer [1, head, pos, pos]. scales, by the name of a norm module: 1 / its denominator [1, pos, 1]. roundings,
    by the same names: what the norm's own arithmetic adds to the exact result [1, pos, d_model]; norms of the Llama family
    compute in float32, whatever the model's dtype."""

    patterns: list
    scales: dict
    roundings: dict

    def to(self, dtype):
        convert = lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}  # noqa: E731
        return Constants([pattern.to(dtype) for pattern in self.patterns], convert(self.scales), convert(self.roundings))


class _Attention:
    """The pattern that an attention module uses. None: the module computes it, as the implementation of the model does, and notes
    it."""

    def __init__(self, pattern=None):
        self.pattern, self.implementation = pattern, None


def _attend(module, query, key, value, attention_mask, scaling=None, softcap=None, **options):
    """Attention with the pattern at hand, which is noted first where there is none.

    query [batch, head, pos, d_head], key and value with as many heads or fewer, to [batch, pos, head, d_head].
    """
    state = _attention_of[module]
    groups = query.shape[1] // value.shape[1]
    if state.pattern is None and state.implementation == "eager":  # in some models with a softmax in float32
        eager = sys.modules[type(module).__module__].eager_attention_forward
        state.pattern = eager(module, query, key, value, attention_mask, scaling=scaling, softcap=softcap, **options)[1]
    elif state.pattern is None:
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
    for module, state in zip(modules, states, strict=True):
        state.implementation = module.config._attn_implementation
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
    """(name, module) of every norm but those whose output is an MLP output, which is replaced, and those of queries and
    keys, which frozen patterns do not need."""
    left_out = {block.mlp_output for block in lm.blocks}
    left_out |= {module for block in lm.blocks for module in block.attention.modules()}
    return [(name, module) for name, module in lm.hf.named_modules() if is_norm(module) and module not in left_out]


def norm_names(lm):
    """{norm module: the name of its constants}."""
    return {module: name for name, module in _norms(lm)}


def _scaled(norm, x, scale):
    """`norm` of x with its denominator given: an affine function of x."""
    if is_centred(norm):
        x = x - x.mean(-1, keepdim=True)
    scaled, bias = times_gain(norm, x * scale), getattr(norm, "bias", None)
    return scaled if bias is None else scaled + bias


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
    states, scales, roundings = [_Attention() for _ in lm.blocks], {}, {}

    def note(name, module):
        def keep(_, args, output):
            scales[name] = norm_scale(module, args[0])
            roundings[name] = output - _scaled(module, args[0], scales[name])

        return keep

    with torch.no_grad(), _attention(lm, states), hooks(_norms(lm), note):
        yield lambda: Constants([state.pattern for state in states], scales, roundings)


@contextmanager
def frozen(lm, constants, *, norms=True):
    """Within the block, forward passes over the prompt's positions use its patterns and, with `norms`, its scales."""

    def fix(name, module):
        return lambda _, args, output: _scaled(module, args[0], constants.scales[name]) + constants.roundings[name]

    with (
        _attention(lm, [_Attention(pattern) for pattern in constants.patterns]),
        hooks(_norms(lm) if norms else [], fix),
    ):
        yield
