"""A dictionary layer by layer, as it comes from files. It is saved piece by piece: one that is larger than memory is never held whole."""

from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.model.kinds import reads_of
from cltdb.model.sites import sites_of
from cltdb.tensor_files import Pieces, pieces, stacked

TENSORS_FILE, INFO_FILE, FORMAT_VERSION = "dictionary.safetensors", "dictionary.json", 2
"""In version 1 topk, too, had one fixed threshold per feature, and `dictionary.json` could have keys of any name."""
HEADER = ("format_version", "kind", "activation", "k", "n_layers", "n_features", "d_model")
PROVENANCE = "provenance"
INFO = (
    *("model_id", "revision", "mlp_input", "input_hook", "output_hook", "layers", "dict_id", "experiment", "steps", "train"),
    *("imported", "from", "gain_folded", "sites", "reads", PROVENANCE),
)
"""The keys of `dictionary.json` beside HEADER. Other keys of `info` are saved under PROVENANCE; nothing depends on them."""


class DictionaryParts:
    """What a `Dictionary` is made of; k as there. layers: per layer {"W_enc": [n_features, d_model], "b_enc": [n_features], "W_dec":
    [n_features, n_targets, d_model], "b_dec": [d_model], "threshold": [n_features] or None, "W_skip": [d_model, d_model] or None}, each
    a tensor, mapped from its file as a rule, or `Pieces`."""

    def __init__(self, *, kind, activation, layers, info, k=None):
        self.kind, self.activation, self.k, self.layers, self.info = kind, activation, k, list(layers), dict(info)
        for name in ("threshold", "W_skip"):
            if len({layer[name] is None for layer in self.layers}) > 1:
                raise CltdbError(
                    "dictionary",
                    found=f"{name} in some layers only",
                    expected=f"a {name} in every layer or in none",
                    do="choose a dictionary whose layers are of one kind",
                )
        for number, layer in enumerate(self.layers):
            for name, part in layer.items():
                if part is not None and (not part.dtype.is_floating_point or 0 in part.shape):
                    raise CltdbError(
                        f"dictionary, layer {number} {name}",
                        found=f"{part.dtype}, shape {list(part.shape)}",
                        expected="floating-point numbers, at least one",
                        do="choose a dictionary of weights, or restore its files",
                    )

    n_layers = property(lambda self: len(self.layers))
    n_features = property(lambda self: self.layers[0]["W_enc"].shape[0])
    d_model = property(lambda self: self.layers[0]["W_enc"].shape[1])
    sites = property(lambda self: sites_of(self.info, self.n_layers))
    reads = property(lambda self: reads_of(self.kind, self.info))  # as in `Dictionary`

    def over_layers(self):
        """{name: `Pieces` of it with all layers, one above the other}, but for W_dec."""
        names = [name for name, part in self.layers[0].items() if name != "W_dec" and part is not None]
        return {name: stacked(_finite(layer[name], number, name) for number, layer in enumerate(self.layers)) for name in names}

    def deepened(self, n_layers):
        """The same with layers without features added, up to n_layers."""
        blank = {
            name: None if part is None else torch.zeros(1, dtype=part.dtype).expand(part.shape)
            for name, part in self.layers[0].items()
        }
        layers = [*self.layers, *[blank] * (n_layers - self.n_layers)]
        return DictionaryParts(kind=self.kind, activation=self.activation, k=self.k, layers=layers, info=self.info)

    def save(self, directory):
        """Writes `dictionary.safetensors` and, last, `dictionary.json` into `directory`; refused where a value is not finite."""
        from cltdb.engine.workspace import write_json, write_safetensors

        decoders = {f"W_dec.{number}": _finite(layer["W_dec"], number, "W_dec") for number, layer in enumerate(self.layers)}
        write_safetensors(Path(directory) / TENSORS_FILE, self.over_layers() | decoders)
        header = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "activation": self.activation,
            **({} if self.k is None else {"k": self.k}),
            "n_layers": self.n_layers,
            "n_features": self.n_features,
            "d_model": self.d_model,
        }
        known = {name: value for name, value in self.info.items() if name in INFO}
        others = {name: value for name, value in self.info.items() if name not in (*INFO, *HEADER)}
        write_json(Path(directory) / INFO_FILE, known | ({PROVENANCE: others} if others else {}) | header)


def _finite(value, layer, name):
    """A tensor or `Pieces`, whose pieces are checked when they are read; a threshold may be infinite, for features that never fire."""

    def checked():
        for piece in pieces(value):
            ends = torch.stack((piece.float() if piece.dtype.itemsize == 1 else piece).aminmax())  # NaN where any is
            if bool((ends.isnan() if name == "threshold" else ~ends.isfinite()).any()):
                raise not_finite(layer, name)
            yield piece

    return Pieces(value.shape, value.dtype, checked)


def not_finite(layer, name):
    """The `CltdbError` of a tensor `name` of a layer, such as W_dec, with NaN or infinity."""
    do = "restore its files or choose another dictionary"
    return CltdbError(f"dictionary, layer {layer} {name}", found="a value that is not finite", expected="finite numbers", do=do)
