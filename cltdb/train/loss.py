"""What training minimises and measures. Convention: sums over features and layers, means over tokens.

loss = mse + coefficient per layer * tanh penalty + preact_coefficient * pre-activation penalty + aux_coefficient * auxiliary loss.
Source: Anthropic, "Circuit Tracing" (2025), CLT training; January 2025 update for the pre-activation penalty; Gao et al. 2024
(arXiv 2406.04093), section A.2, for the auxiliary loss that lets dead features model the residual error.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from cltdb.model.sparse import Pairs, decode


class Measured(NamedTuple):
    """The loss to differentiate and what the step says of itself; per-layer tensors are [n_layers], fired [n_layers, n_features]
    bool."""

    loss: torch.Tensor
    mse: torch.Tensor
    sparsity: torch.Tensor
    preact: torch.Tensor
    aux: torch.Tensor
    l0: torch.Tensor
    fvu: torch.Tensor
    sst: torch.Tensor
    fired: torch.Tensor


def measure(module, x, y, *, coefficient, dead):
    """x, y [token, layer, d_model] in training units; coefficient of the tanh penalty now [n_layers]; dead [n_layers, n_features] bool."""
    settings = module.settings
    pre = [module.pre_activations(x, layer) for layer in range(module.n_layers)]
    pairs = [module.activate(h, layer) for layer, h in enumerate(pre)]
    error = y - module.decode(pairs, x)
    sse = error.square().sum(-1).mean(0)
    zero = y.new_zeros(())
    sparsity, preact = zero, zero
    if settings.activation != "batchtopk":
        for layer in range(module.n_layers):
            norms = module.decoder_norms(layer)
            penalty = torch.tanh(settings.tanh_c * norms[pairs[layer].feature] * pairs[layer].value).sum() / len(x)
            sparsity = sparsity + coefficient[layer] * penalty
            if settings.activation == "jumprelu":
                below = F.relu(module.log_threshold[layer].exp() - pre[layer])
                preact = preact + settings.preact_coefficient * (below * norms).sum() / len(x)
    aux = (
        settings.aux_coefficient * auxiliary(module, pre, error.detach(), dead)
        if settings.aux_coefficient and dead.any()
        else zero
    )
    with torch.no_grad():
        active = [layer_pairs.value > 0 for layer_pairs in pairs]
        fired = torch.zeros_like(dead)
        for layer, layer_pairs in enumerate(pairs):
            fired[layer, layer_pairs.feature[active[layer]]] = True
        sst = (y - y.mean(0)).square().sum(-1).mean(0)
        l0 = torch.stack([mask.sum() / len(x) for mask in active])
    return Measured(sse.sum() + sparsity + preact + aux, sse, sparsity, preact, aux, l0, sse.detach() / sst, sst, fired)


def auxiliary(module, pre, error, dead):
    """Mean over tokens of the residual error left when each layer's most activated dead features explain it."""
    left = error
    for layer, h in enumerate(pre):
        features = dead[layer].nonzero().flatten()
        if not len(features):
            continue
        values, places = h[:, features].topk(min(module.settings.aux_features, len(features)), dim=1)
        token = torch.arange(len(h), device=h.device).repeat_interleave(values.shape[1])
        out = decode(Pairs(token, features[places].flatten(), F.relu(values).flatten()), module.W_dec[layer], len(h))
        left = left - F.pad(out, (0, 0, layer, module.n_layers - layer - out.shape[1]))
    return left.square().sum(-1).mean(0).sum()
