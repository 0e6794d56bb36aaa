"""How activations are stored: float32, bfloat16, int8 with two scales, int4 with three.

int8: value = q * channel_scale[layer, channel] * token_scale[token, layer]. The static channel scale (mean magnitude over a
calibration sample; a root mean square would let one loud token of the sample set it) takes outlier channels out, the token scale
loud tokens, so neither costs the other values their bits.
int4: value = q * channel_scale * group_scale[token, layer, group], where a group is GROUP neighbouring channels and its scale maps
the group's largest magnitude to -8; two values a byte, the even channel in the low half. A group scale is kept in float16 as a
share of token_scale, the largest of its token and layer, so it can neither overflow nor lose a loud token.

Encoded values travel as {suffix: array [token, width]}, the columns of one side of a shard: "" the values, "_scale" the token
scale, "_group_scale". Decoding is numpy alone, which lets threads decode beside a training step without its thread pool.
"""

import numpy as np
import torch
from torch.nn import functional as F

from cltdb.activations.sizes import CODECS, GROUP, layout, row_bytes  # noqa: F401

CHUNK_VALUES = 1 << 16  # decoded at a time: 256 KB stay in the cache between the passes over them


def channel_scale(sample):
    """sample [token, layer, d_model] to the static scale [layer, d_model], never zero."""
    return mean_magnitude(sample.double().abs().sum(0), len(sample))


def mean_magnitude(magnitudes, n_tokens):
    """The static scale from the sum of absolute values [layer, d_model], float64, over n_tokens."""
    return _never_zero((magnitudes / n_tokens).float())


def encode(x, codec, scale):
    """x [token, layer, d_model], scale [layer, d_model] to the columns of `layout`."""
    if codec == "float32":
        return {"": x.float().flatten(1).contiguous().numpy()}
    if codec == "bfloat16":
        return {"": x.bfloat16().flatten(1).contiguous().view(torch.uint16).numpy()}
    z = x.float() / scale
    if codec == "int8":
        token_scale = _never_zero(z.abs().amax(-1) / 127)
        return {"": (z / token_scale[..., None]).round().to(torch.int8).flatten(1).numpy(), "_scale": token_scale.numpy()}
    return _encode_int4(z)


def _encode_int4(z):
    """z [token, layer, d_model], in units of the channel scale, to the columns of int4."""
    n_channels = z.shape[-1]
    groups = F.pad(z, (0, -n_channels % GROUP)).unflatten(-1, (-1, GROUP))
    token_scale = _never_zero(z.abs().amax(-1) / 8)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    share = (largest / -8 / token_scale[..., None]).half()  # the signed scale: -8 stands for the largest magnitude
    step = share.float() * token_scale[..., None]
    q = (groups / _never_zero(step)[..., None]) * (step != 0)[..., None]
    q = q.round().clamp(-8, 7).flatten(-2)[..., : n_channels + n_channels % 2].to(torch.int16) + 8
    packed = (q[..., 0::2] | (q[..., 1::2] << 4)).to(torch.uint8)
    return {
        "": packed.flatten(1).numpy(),
        "_scale": token_scale.numpy(),
        "_group_scale": share.flatten(1).numpy(),
    }


def _never_zero(scale):
    return torch.where(scale != 0, scale, torch.ones_like(scale))


def decode(columns, codec, scale, out):
    """Fills out [token, layer, d_model] float32 with what `encode` stored. columns: {suffix: array}; scale: float32 array [layer,
    d_model]; all of numpy."""
    rows = max(1, CHUNK_VALUES // (out.shape[1] * out.shape[2]))
    for start in range(0, len(out), rows):
        part = slice(start, start + rows)
        _DECODERS[codec]({suffix: values[part] for suffix, values in columns.items()}, scale, out[part])


def _decode_float32(columns, scale, out):
    out[:] = columns[""].reshape(out.shape)


def _decode_bfloat16(columns, scale, out):
    np.left_shift(columns[""].reshape(out.shape), np.uint32(16), out=out.view(np.uint32), dtype=np.uint32, casting="safe")


def _decode_int8(columns, scale, out):
    out[:] = columns[""].reshape(out.shape)
    out *= scale
    out *= columns["_scale"][..., None]


# What a byte of int4 stands for: its low and its high half.
_HALVES = np.stack([np.arange(256) % 16 - 8, np.arange(256) // 16 - 8], axis=1).astype(np.float32)


def _decode_int4(columns, scale, out):
    n_rows, n_layers, n_channels = out.shape
    values = _HALVES.take(columns[""], axis=0).reshape(n_rows, n_layers, -1)
    step = columns["_group_scale"].astype(np.float32).reshape(n_rows, n_layers, -1) * columns["_scale"][..., None]
    if n_channels % GROUP:
        step = np.repeat(step, GROUP, axis=-1)[..., :n_channels]
        np.multiply(values[..., :n_channels], step, out=out)
    else:
        grouped = (n_rows, n_layers, -1, GROUP)
        np.multiply(values.reshape(grouped), step[..., None], out=out.reshape(grouped))
    out *= scale


_DECODERS = {"float32": _decode_float32, "bfloat16": _decode_bfloat16, "int8": _decode_int8, "int4": _decode_int4}
