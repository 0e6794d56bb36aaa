"""The parts of a norm: LayerNorm centres, both kinds divide by a denominator per token and multiply by a gain per channel."""

import torch


def norm_scale(norm, x):
    """One over the denominator of `norm` at x, [..., 1]."""
    if is_centred(norm):
        return torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + norm.eps)
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def norm_gain(norm):
    """The factor per channel [d_model] of a LayerNorm or RMSNorm, a single 1 where it has none; Gemma stores it less one."""
    if norm.weight is None:
        return torch.ones(())
    return 1 + norm.weight if type(norm).__name__.startswith("Gemma") else norm.weight


def norm_bias(norm):
    """What a LayerNorm adds per channel [d_model], a single 0 for norms that add nothing."""
    bias = getattr(norm, "bias", None)
    return torch.zeros(()) if bias is None else bias


def is_centred(norm):
    """Whether the norm takes the mean over channels off."""
    return isinstance(norm, torch.nn.LayerNorm)


def read_directions(norm, vectors):
    """What `vectors` [..., d_model], which read the norm's output, read of its input, but for the scale:
    <vectors, norm(x)> = norm_scale(norm, x) * <read_directions(norm, vectors), x> + a constant."""
    vectors = vectors * norm_gain(norm)
    return vectors - vectors.mean(-1, keepdim=True) if is_centred(norm) else vectors
