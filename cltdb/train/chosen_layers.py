"""Training on some layers of a model: a source that gives only these, and the dictionary of all layers made from theirs."""

import torch

from cltdb.activations.loader import Batch
from cltdb.activations.sizes import check_layers
from cltdb.model.kinds import KINDS
from cltdb.model.transcoder import Dictionary


class ChosenLayers:
    """A source whose layers are `layers` of another's."""

    def __init__(self, source, layers):
        check_layers(layers, source.summary["n_layers"], source.summary["model_id"])
        self.source, self.layers, self.n_rows = source, layers, source.n_rows
        norms = {f"{side}_mean_norm": source.summary[f"{side}_mean_norm"] for side in ("mlp_input", "mlp_output")}
        self.summary = source.summary | {name: [values[layer] for layer in layers] for name, values in norms.items()}
        self.summary["n_layers"] = len(layers)

    def batch(self, *position, **share):
        return self._part(self.source.batch(*position, **share))

    def batches(self, *position, **share):
        return map(self._part, self.source.batches(*position, **share))

    def _part(self, batch):
        return Batch(batch.x[:, self.layers], batch.y[:, self.layers])


def spread(dictionary, layers, *, n_layers):
    """The dictionary of n_layers layers whose `layers` are those of `dictionary`; at the others no feature fires and b_dec is zero."""

    def rows(tensor):
        return (
            None if tensor is None else torch.zeros(n_layers, *tensor.shape[1:], dtype=tensor.dtype).index_copy(0, places, tensor)
        )

    places = torch.tensor(layers)
    W_dec = []
    for layer in range(n_layers):
        n_targets = KINDS[dictionary.kind].n_targets(layer, n_layers)
        W = torch.zeros(dictionary.n_features, n_targets, dictionary.d_model, dtype=dictionary.dtype)
        if layer in layers:
            number = layers.index(layer)
            W[:, [layers[target] - layer for target in dictionary.target_layers(number)]] = dictionary.W_dec[number]
        W_dec.append(W)
    return Dictionary(
        kind=dictionary.kind,
        activation=dictionary.activation,
        W_enc=rows(dictionary.W_enc),
        b_enc=rows(dictionary.b_enc),
        W_dec=W_dec,
        b_dec=rows(dictionary.b_dec),
        threshold=rows(dictionary.threshold),
        k=dictionary.k,
        W_skip=rows(dictionary.W_skip),
        info=dictionary.info | {"layers": layers},
    )
