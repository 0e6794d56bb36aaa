"""The model's own MLP neurons as a dictionary: what a neuron's nonlinearity gives (in gated MLPs times what it gates) as it enters the down
projection. A neuron fires where that is above zero.

Neurons are dense: in the toy world, where a feature is active at 1 % of the tokens, a neuron is at 18 % of them. `sparse_neurons` compares
with their large values alone. Only the positive side counts, also in gated MLPs.
"""

from functools import partial

import numpy as np
import torch

from cltdb.explain.baselines.sample import n_above
from cltdb.explain.baselines.wanted import Made
from cltdb.model.transcoder import Dictionary


@torch.no_grad()
def values(lm, x, layer):
    """x [..., d_model], MLP inputs of `layer`, to the values of its neurons [..., d_mlp]."""
    block, seen = lm.blocks[layer], []
    handle = lm.family.neurons(block.mlp).output.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        block.mlp(x if lm.mlp_input == "normed" else block.mlp_norm(x))
    finally:
        handle.remove()
    return seen[0]


class Neurons(Dictionary):
    """Some neurons of each layer, units [n_layers, n_features], as a per-layer transcoder. threshold [n_layers]. A pre-activation is the
    neuron's value; W_enc is what its nonlinearity reads."""

    def __init__(self, lm, units, threshold, info):
        self.lm, self.units = lm, torch.from_numpy(units).to(lm.device)
        parts = [lm.family.neurons(block.mlp) for block in lm.blocks]
        W_enc, W_dec = (
            [getattr(part, side)[own] for part, own in zip(parts, self.units, strict=True)] for side in ("W_in", "W_out")
        )
        threshold = torch.tensor(threshold, dtype=lm.dtype, device=lm.device)[:, None]
        super().__init__(
            kind="plt",
            activation="jumprelu",
            W_enc=torch.stack(W_enc),
            b_enc=torch.zeros_like(self.units, dtype=lm.dtype),
            W_dec=[W[:, None] for W in W_dec],
            b_dec=torch.zeros(lm.n_layers, lm.d_model, dtype=lm.dtype, device=lm.device),
            threshold=threshold.expand(units.shape),
            info=info,
        )

    def pre_activations_layer(self, x, layer):
        return values(self.lm, x, layer)[..., self.units[layer]]


def identity(wanted, seed):
    """What the dictionary is made of, beside model and text, as JSON values; no chance is part of it."""
    return [wanted.n_units, sorted(wanted.l0)]


def make(lm, wanted, text, *, seed):
    """The `Made` of the neurons."""
    return above(lm, wanted, text, dict.fromkeys(wanted.l0, 0.0))


def above(lm, wanted, text, cut):
    """The `Made` of the neurons that fire above cut[layer]; where a layer has more than wanted.n_units, some of every density."""
    counts = n_above(text, partial(values, lm), cut)
    n_units = min(wanted.n_units, len(next(iter(counts.values()))))
    threshold, units = np.zeros(lm.n_layers), np.tile(np.arange(n_units), (lm.n_layers, 1))
    for layer, bound in cut.items():
        threshold[layer], units[layer] = bound, of_every_density(counts[layer], n_units)
    return Made(Neurons(lm, units, threshold, {"mlp_input": lm.mlp_input, "layers": list(cut)}), units)


def of_every_density(counts, n):
    """Sorted numbers of n of the units, at equal distances in the order of their counts; of units that never fire only what is left over."""
    order = np.argsort(-counts, kind="stable")
    n_ranks = max(int((counts > 0).sum()), n)
    return np.sort(order[np.arange(n) * n_ranks // n])
