"""The parts of a norm: LayerNorm centres, both kinds divide by a denominator per token and multiply by a gain per channel.

A norm here is a module of a model; architectures.py says which of its family it is.
"""

import torch

from cltdb.model.architectures import NORMS


def is_norm(module):
    """Whether a module is a norm of one of the families."""
    return type(module).__name__ in NORMS


def is_centred(norm):
    """Whether the norm takes the mean over channels off."""
    return NORMS[type(norm).__name__].centred


def norm_scale(norm, x):
    """One over the denominator of `norm` at x, [..., 1]."""
    epsilon = getattr(norm, NORMS[type(norm).__name__].epsilon)
    square = x.var(-1, unbiased=False, keepdim=True) if is_centred(norm) else x.square().mean(-1, keepdim=True)
    return torch.rsqrt(square + epsilon)


def norm_gain(norm):
    """The factor per channel [d_model], a single 1 where the norm has none. In float32 at least where something is added to the weight, as the
    models themselves do: 1 and a weight of bfloat16 have no sum there that keeps the weight's digits."""
    if norm.weight is None:
        return torch.ones(())
    offset = NORMS[type(norm).__name__].gain_offset
    return offset + norm.weight.to(torch.promote_types(norm.weight.dtype, torch.float32)) if offset else norm.weight


def times_gain(norm, vectors):
    """vectors [..., d_model] times the gain, in the wider of their number type and that of the norm's weight."""
    dtype = vectors.dtype if norm.weight is None else torch.promote_types(vectors.dtype, norm.weight.dtype)
    return (vectors * norm_gain(norm)).to(dtype)


def norm_bias(norm):
    """What a LayerNorm adds per channel [d_model], a single 0 for norms that add nothing."""
    bias = getattr(norm, "bias", None)
    return torch.zeros(()) if bias is None else bias


def read_directions(norm, vectors):
    """The directions that read from the norm's input what `vectors` [..., d_model] read from its output, up to the scale:
    <vectors, norm(x)> = norm_scale(norm, x) * <read_directions(norm, vectors), x> + a constant."""
    vectors = times_gain(norm, vectors)
    return vectors - vectors.mean(-1, keepdim=True) if is_centred(norm) else vectors


def written_directions(norm, vectors):
    """What the norm makes of `vectors` [..., d_model], up to the scale: the transpose of `read_directions`, and for all x
    norm(x + vectors) - norm(x) = norm_scale * written_directions(norm, vectors) where the scale is that of x."""
    if is_centred(norm):
        vectors = vectors - vectors.mean(-1, keepdim=True)
    return times_gain(norm, vectors)
