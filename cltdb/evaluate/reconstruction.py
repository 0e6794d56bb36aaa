"""FVU, L0, dead and dense features of a dictionary on held-out activations; accumulated over batches in float64."""

import torch

from cltdb.model.transcoder import Outputs


class Reconstruction:
    """Sums over tokens; `add_all` takes batches, `rows` gives (layer or None, name, value). The caller leaves out what is no
    ordinary token."""

    def __init__(self, n_layers, n_features, d_model):
        zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64)  # noqa: E731
        self.n_tokens, self.d_model = 0, d_model
        self.sse, self.squares, self.norms = zeros(n_layers), zeros(n_layers), zeros(n_layers)
        self.sums = zeros(n_layers, d_model)
        self.fired = torch.zeros(n_layers, n_features, dtype=torch.int64)

    def add_all(self, dictionary, x, y):
        """The batch with MLP inputs x and outputs y [token, layer, d_model]; one layer's activations in memory at a time."""
        x, y = dictionary.sides(x, y)
        x = x.to(dictionary.dtype)
        outputs = Outputs(dictionary, dictionary.b_dec)
        for layer in range(dictionary.n_layers):
            activations = dictionary.encode_layer(x[:, layer], layer)
            outputs.add(activations, layer)
            self.add_activations(layer, activations)
        self.add(y, outputs.together(x))

    def add_activations(self, layer, activations):
        """activations [token, n_features] of a layer."""
        self.fired[layer] += (activations > 0).sum(0).cpu()

    def add(self, y, reconstruction):
        """y, reconstruction [token, layer, d_model]."""
        y = y.double().cpu()
        self.n_tokens += len(y)
        self.sse += (y - reconstruction.double().cpu()).square().sum((0, 2))
        self.squares += y.square().sum((0, 2))
        self.norms += y.norm(dim=-1).sum(0)
        self.sums += y.sum(0)

    @property
    def sst(self):
        """Total sum of squares about the mean, per layer."""
        return self.squares - self.sums.square().sum(-1) / self.n_tokens

    def rows(self, layers, *, dense_above):
        """Metrics of `layers`: pooled FVU weighs each layer by 1 / s², s = mean output norm / sqrt(d_model)."""
        s2 = (self.norms[layers] / self.n_tokens).square() / self.d_model
        sse, sst, density = self.sse[layers], self.sst[layers], self.fired[layers].double() / self.n_tokens
        pooled = {
            "fvu": (sse / s2).sum() / (sst / s2).sum(),
            "fvu_model_units": sse.sum() / sst.sum(),
            "l0": density.sum(1).mean(),
            "dead_frac": (density == 0).double().mean(),
            "dense_frac": (density > dense_above).double().mean(),
        }
        per_layer = {
            "fvu": sse / sst,
            "fvu_model_units": sse / sst,
            "l0": density.sum(1),
            "dead_frac": (density == 0).double().mean(1),
            "dense_frac": (density > dense_above).double().mean(1),
        }
        return [(None, name, float(value)) for name, value in pooled.items()] + [
            (layer, name, float(value)) for name, values in per_layer.items() for layer, value in zip(layers, values, strict=True)
        ]
