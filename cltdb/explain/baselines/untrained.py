"""An untrained dictionary: the weights and biases that stage train begins with, and thresholds that give the L0 of the trained one.

Encoders and decoders are drawn and biases calibrated by train's own code. Then each layer gets one threshold, as batchtopk has at inference:
the quantile of its pre-activations that the wanted L0 exceeds. Features of an untrained dictionary are drawn independently. So a few of them
stand for all: n of n_features features have n / n_features of the L0. They write to their own layer alone. What they write decides nothing
but which features count as similar.
"""

import math

import numpy as np
import torch

from cltdb.explain.baselines.sample import cuts
from cltdb.explain.baselines.wanted import Made
from cltdb.train.module import Transcoder, export
from cltdb.train.settings import Train
from cltdb.train.trained import computing_for

CALIBRATION_TOKENS = 4096


def identity(wanted, seed):
    """What the dictionary is made of, beside model and text, as JSON values."""
    return [
        min(wanted.n_units, wanted.n_features),
        wanted.n_features,
        sorted(wanted.l0.items()),
        seed,
        *filter(None, [wanted.reads]),
    ]


@torch.no_grad()
def make(lm, wanted, text, *, seed):
    """The `Made` of an untrained dictionary. Its units are numbered through."""
    n_units = min(wanted.n_units, wanted.n_features)
    share = n_units / wanted.n_features
    kind = {"kind": "sae", "reads": wanted.reads} if wanted.reads else {"kind": "plt"}
    settings = Train(**kind, n_features=n_units, l0=1, init_l0=Train().init_l0 * share)
    generator = torch.Generator().manual_seed(seed)
    module = Transcoder(settings, n_layers=lm.n_layers, d_model=lm.d_model, generator=generator)
    text = text.of(wanted.reads)
    x, y = _first(text, CALIBRATION_TOKENS)
    scales = [math.sqrt(lm.d_model) / side.norm(dim=-1).mean(0) for side in (x, y)]
    module.calibrate(*(side * scale[:, None] for side, scale in zip((x, y), scales, strict=True)))
    dictionary = export(
        module.state_dict(),
        settings,
        input_scale=scales[0],
        output_scale=scales[1],
        threshold=torch.zeros(lm.n_layers, n_units),
        info={"mlp_input": lm.mlp_input, "layers": list(wanted.l0)} | ({"reads": wanted.reads} if wanted.reads else {}),
    )
    dictionary = computing_for(lm, dictionary)

    def values(x, layer):
        return dictionary.pre_activations_layer(x.to(dictionary.dtype), layer)

    found = cuts(text, values, {layer: mean * share for layer, mean in wanted.l0.items()})
    for layer, cut in found.items():
        dictionary.threshold[layer] = max(cut, 0)
        dictionary.b_enc[layer] -= min(cut, 0)  # a feature fires above zero
    return Made(dictionary, np.tile(np.arange(n_units), (lm.n_layers, 1)))


def _first(text, n_tokens):
    """MLP inputs and outputs [token, n_layers, d_model] of the first tokens of a `SampledText`, in float32 on the CPU."""
    found, n_found = [], 0
    for batch in text.batches():
        found.append([side.float().cpu() for side in batch])
        n_found += len(batch[0])
        if n_found >= n_tokens:
            break
    return tuple(torch.cat(side)[:n_tokens] for side in zip(*found, strict=True))
