"""The dense twin of a training step: the same mathematics over every (token, feature) pair, by einsum."""

import torch
from torch.nn import functional as F

from cltdb.model.nonlinearity import JumpReLU


def tensors_of(module):
    """The parameters of a `train.module.Transcoder` as stacked leaves: W_enc, b_enc, W_dec [source, feature, target, d_model] with
    zeros where a feature does not write, b_dec, log_threshold, W_skip."""
    L = module.n_layers
    dense = {
        "W_enc": torch.stack([layer.W_enc for layer in module.layers]),
        "b_enc": torch.stack([layer.b_enc for layer in module.layers]),
        "W_dec": torch.stack(
            [F.pad(layer.W_dec, (0, 0, s, L - s - layer.W_dec.shape[1])) for s, layer in enumerate(module.layers)]
        ),
        "b_dec": module.b_dec,
    }
    if module.settings.activation == "jumprelu":
        dense["log_threshold"] = torch.stack([layer.log_threshold for layer in module.layers])
    if module.settings.skip:
        dense["W_skip"] = module.W_skip
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in dense.items()}


def activations(settings, h, threshold):
    """a [token, layer, feature] of pre-activations h."""
    if settings.activation == "relu":
        return F.relu(h)
    if settings.activation == "jumprelu":
        return JumpReLU.apply(h, threshold.expand_as(h), settings.bandwidth)
    if settings.activation == "topk":
        cut = h.topk(round(settings.l0), dim=-1).values[..., -1:]
    else:
        flat = h.transpose(0, 1).flatten(1)
        cut = flat.topk(min(round(settings.l0 * len(h)), flat.shape[1])).values[:, -1][None, :, None]
    return h * ((h >= cut) & (h > 0))


def loss(settings, tensors, x, y, *, coefficient, dead, lift):
    """(loss, l0 [layer]) of x, y [token, layer, d_model]."""
    h = torch.einsum("tld,lfd->tlf", x, tensors["W_enc"]) + tensors["b_enc"] + lift
    threshold = tensors["log_threshold"].exp() if settings.activation == "jumprelu" else torch.zeros_like(tensors["b_enc"])
    a = activations(settings, h, threshold)
    y_hat = torch.einsum("tsf,sfld->tld", a, tensors["W_dec"]) + tensors["b_dec"]
    if settings.skip:
        y_hat = y_hat + torch.einsum("tld,lde->tle", x, tensors["W_skip"])
    error = y - y_hat
    total = error.square().sum(-1).mean(0).sum()
    norms = tensors["W_dec"].flatten(2).norm(dim=-1)
    if settings.activation in ("relu", "jumprelu"):
        total = total + (coefficient * torch.tanh(settings.tanh_c * norms * a).sum(-1).mean(0)).sum()
    if settings.activation == "jumprelu":
        total = total + settings.preact_coefficient * (F.relu(threshold - h) * norms).sum((1, 2)).mean()
    if settings.aux_coefficient and dead.any():
        hidden = torch.where(dead, h, -torch.inf)
        k = min(settings.aux_features, h.shape[-1])
        best = hidden.topk(k, dim=-1).values[..., -1:]
        revived = F.relu(torch.where(dead & (hidden >= best), h, 0))
        left = error.detach() - torch.einsum("tsf,sfld->tld", revived, tensors["W_dec"])
        total = total + settings.aux_coefficient * left.square().sum(-1).mean(0).sum()
    return total, (a > 0).sum(-1).float().mean(0)
