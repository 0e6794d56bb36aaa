"""The trainable transcoder, in training units: MLP inputs and outputs of each layer scaled to mean norm sqrt(d_model).

`export` folds the scales in and gives the `Dictionary` in model units.
"""

import math

import torch
from torch import nn

from cltdb.model.nonlinearity import JumpReLU, batch_top_k
from cltdb.model.sparse import Pairs, decode
from cltdb.model.transcoder import Dictionary


class Transcoder(nn.Module):
    """Parameters as in `Dictionary`; `log_threshold` only for jumprelu. settings: `spec.Train`."""

    def __init__(self, settings, *, n_layers, d_model, generator):
        super().__init__()
        self.settings, self.n_layers, self.d_model = settings, n_layers, d_model
        n_features = settings.n_features

        def uniform(*shape, bound):
            return nn.Parameter((torch.rand(*shape, generator=generator) * 2 - 1) * bound)

        self.W_enc = uniform(n_layers, n_features, d_model, bound=math.sqrt(3 / d_model))
        self.b_enc = nn.Parameter(torch.zeros(n_layers, n_features))
        self.b_dec = nn.Parameter(torch.zeros(n_layers, d_model))
        n_targets = [n_layers - layer if settings.kind == "clt" else 1 for layer in range(n_layers)]
        self.W_dec = nn.ParameterList(uniform(n_features, n, d_model, bound=1 / math.sqrt(n_layers * d_model)) for n in n_targets)
        if settings.activation == "jumprelu":
            self.log_threshold = nn.Parameter(torch.full((n_layers, n_features), math.log(settings.threshold_init)))
        if settings.skip:
            self.W_skip = nn.Parameter(torch.zeros(n_layers, d_model, d_model))

    @torch.no_grad()
    def calibrate(self, x, y):
        """Sets b_dec to the mean output and b_enc so that each feature fires at an equal rate. x, y [token, layer, d_model].

        Source: Anthropic's January 2025 circuits update, "bias initialisation" (rate 10,000 / n_features), at most 10 %.
        """
        self.b_dec.copy_(y.mean(0))
        rate = min(0.1, self.settings.init_l0 / self.settings.n_features)
        for layer in range(self.n_layers):
            h = x[:, layer] @ self.W_enc[layer].T
            cut = h.float().quantile(1 - rate, dim=0)
            threshold = self.log_threshold[layer].exp() if self.settings.activation == "jumprelu" else 0
            self.b_enc[layer] = threshold - cut

    def pre_activations(self, x, layer):
        """x [token, layer, d_model] to h [token, n_features] of one layer."""
        return torch.addmm(self.b_enc[layer], x[:, layer], self.W_enc[layer].T)

    def activate(self, h, layer):
        """The active `Pairs` of one layer (for jumprelu with those in the straight-through window, of value 0)."""
        if self.settings.activation == "batchtopk":
            token, feature = batch_top_k(h, self.settings.l0).nonzero(as_tuple=True)
            return Pairs(token, feature, h[token, feature])
        if self.settings.activation == "relu":
            token, feature = (h > 0).nonzero(as_tuple=True)
            return Pairs(token, feature, h[token, feature])
        threshold, bandwidth = self.log_threshold[layer].exp(), self.settings.bandwidth
        token, feature = (h > threshold - bandwidth / 2).detach().nonzero(as_tuple=True)
        return Pairs(token, feature, JumpReLU.apply(h[token, feature], threshold[feature], bandwidth))

    def decode(self, pairs, x):
        """Pairs of every layer to MLP outputs [token, layer, d_model]."""
        y = self.b_dec.expand(len(x), -1, -1)
        for source, layer_pairs in enumerate(pairs):
            out = decode(layer_pairs, self.W_dec[source], len(x))
            y = y + nn.functional.pad(out, (0, 0, source, self.n_layers - source - out.shape[1]))
        return y + torch.einsum("tld,lde->tle", x, self.W_skip) if self.settings.skip else y

    def decoder_norms(self, layer):
        """Norm of each feature's concatenated decoder [n_features]."""
        return self.W_dec[layer].flatten(1).norm(dim=1)

    @torch.no_grad()
    def export(self, *, input_scale, output_scale, threshold=None, info):
        """The `Dictionary` in model units. Scales [n_layers] multiply model units; threshold [n_layers, n_features] where it is
        not learned."""
        if self.settings.activation == "jumprelu":
            threshold = self.log_threshold.exp()
        elif self.settings.activation == "relu":
            threshold = None
        W_dec = [W.detach() / output_scale[layer : layer + W.shape[1], None] for layer, W in enumerate(self.W_dec)]
        W_skip = self.W_skip.detach() * (input_scale / output_scale)[:, None, None] if self.settings.skip else None
        return Dictionary(
            kind=self.settings.kind,
            activation=self.settings.activation,
            W_enc=self.W_enc.detach() * input_scale[:, None, None],
            b_enc=self.b_enc.detach(),
            W_dec=W_dec,
            b_dec=self.b_dec.detach() / output_scale[:, None],
            threshold=threshold,
            W_skip=W_skip,
            info=info,
        )
