"""FVU, L0, dead and dense features of a dictionary on held-out activations; accumulated over batches in float64."""

import torch

from cltdb.model.transcoder import Outputs


class Errors:
    """Sums over tokens of how far reconstructions are from the true outputs, and of how many features fire. `rows` gives (layer or None,
    name, value)."""

    def __init__(self, n_layers, d_model):
        zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64)  # noqa: E731
        self.n_tokens, self.d_model = 0, d_model
        self.sse, self.squares, self.norms, self.firings = (zeros(n_layers) for _ in range(4))
        self.sums = zeros(n_layers, d_model)

    def add(self, y, reconstruction, firings):
        """y, reconstruction [token, layer, d_model] in float64; firings [token, layer]: how many features fire."""
        self.n_tokens += len(y)
        self.sse += (y - reconstruction).square().sum((0, 2))
        self.squares += y.square().sum((0, 2))
        self.norms += y.norm(dim=-1).sum(0)
        self.sums += y.sum(0)
        self.firings += firings.sum(0)

    @property
    def sst(self):
        """Total sum of squares about the mean, per layer."""
        return self.squares - self.sums.square().sum(-1) / self.n_tokens

    def rows(self, layers):
        """Metrics of `layers`: pooled FVU weighs each layer by 1 / s², s = mean output norm / sqrt(d_model)."""
        s2 = (self.norms[layers] / self.n_tokens).square() / self.d_model
        sse, sst, l0 = self.sse[layers], self.sst[layers], self.firings[layers] / self.n_tokens
        pooled = {"fvu": (sse / s2).sum() / (sst / s2).sum(), "fvu_model_units": sse.sum() / sst.sum(), "l0": l0.mean()}
        return _rows(layers, pooled, {"fvu": sse / sst, "fvu_model_units": sse / sst, "l0": l0})


class Reconstruction(Errors):
    """The same, and of each feature on how many tokens it fires. `add_all` takes batches. The caller leaves out what is no ordinary token."""

    def __init__(self, n_layers, n_features, d_model):
        super().__init__(n_layers, d_model)
        self.fired = torch.zeros(n_layers, n_features, dtype=torch.int64)

    def add_all(self, dictionary, x, y, parts=()):
        """The batch with MLP inputs x and outputs y [token, layer, d_model]; one layer's activations in memory at a time. parts: (`Errors`,
        mask of tokens) pairs; each gets its tokens too."""
        x, y = dictionary.sides(x, y)
        x = x.to(dictionary.dtype)
        outputs, firings = Outputs(dictionary, dictionary.b_dec), []
        for layer in range(dictionary.n_layers):
            activations = dictionary.encode_layer(x[:, layer], layer)
            outputs.add(activations, layer)
            fires = activations > 0
            self.fired[layer] += fires.sum(0).cpu()
            firings.append(fires.sum(1).cpu())
        batch = y.double().cpu(), outputs.together(x).double().cpu(), torch.stack(firings, dim=1)
        self.add(*batch)
        for one, rows in parts:
            one.add(*(values[rows] for values in batch))

    def rows(self, layers, *, dense_above):
        """Those of `Errors`, and of the features' densities: the shares that are 0 and above `dense_above`, their mean and Gini coefficient."""
        density = self.fired[layers].double() / self.n_tokens
        means = {"dead_frac": (density == 0).double(), "dense_frac": (density > dense_above).double(), "density": density}
        per_layer = {name: values.mean(1) for name, values in means.items()}
        rows = super().rows(layers) + _rows(layers, {name: values.mean() for name, values in means.items()}, per_layer)
        of = [(None, density.ravel()), *zip(layers, density, strict=True)]
        return rows + [(layer, "usage_gini", gini(values)) for layer, values in of if values.any()]


def gini(values):
    """The Gini coefficient of values [n] from 0 on: 0 where all are equal, near 1 where one has nearly all. Half their mean absolute difference over all
    pairs, by their mean."""
    n, rank = len(values), torch.arange(1, len(values) + 1, dtype=values.dtype)
    return float(2 * (rank * values.sort().values).sum() / (n * values.sum()) - (n + 1) / n)


def _rows(layers, pooled, per_layer):
    return [(None, name, float(value)) for name, value in pooled.items()] + [
        (layer, name, float(value)) for name, values in per_layer.items() for layer, value in zip(layers, values, strict=True)
    ]
