"""How activations are stored: float32, bfloat16, or int8 with two scales.

int8: value = q * channel_scale[layer, channel] * token_scale[token, layer]. The static channel scale (root mean square over a
calibration sample) takes outlier channels out, the token scale loud tokens, so neither costs the other values their bits.
"""

import numpy as np
import torch

CODECS = ("float32", "bfloat16", "int8")
_STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def channel_scale(sample):
    """sample [token, layer, d_model] to the static scale [layer, d_model], never zero."""
    scale = sample.float().square().mean(0).sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def encode(x, codec, scale):
    """x [token, layer, d_model], scale [layer, d_model] to (stored values [token, layer, d_model], token scale [token, layer] or
    None)."""
    if codec != "int8":
        return x.to(_STORED[codec]), None
    z = x.float() / scale
    token_scale = z.abs().amax(-1) / 127
    token_scale = torch.where(token_scale > 0, token_scale, torch.ones_like(token_scale))
    return (z / token_scale[..., None]).round().to(torch.int8), token_scale


def decode(values, token_scale, codec, scale):
    """The inverse of `encode`, in float32."""
    if codec != "int8":
        return values.float()
    return values.float() * scale * token_scale[..., None]


def to_numpy(values):
    """Stored values as an array that Arrow knows: bfloat16 travels as uint16 bits."""
    return values.contiguous().view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.contiguous().numpy()


def from_numpy(values, codec):
    """The inverse of `to_numpy`."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.view(torch.bfloat16) if codec == "bfloat16" else tensor
