"""The dictionary: a cross-layer transcoder (CLT) or its per-layer case (PLT), in model units.

A feature reads the MLP input of its source layer and writes to the MLP outputs of that layer and (CLT) every later one:
    h[s] = x[s] W_enc[s]^T + b_enc[s];  a[s] = h[s] where h[s] > threshold[s], else 0;  y[t] = b_dec[t] + sum_{s<=t} a[s]
    W_dec[s][:, t-s]
Source: Anthropic, "Circuit Tracing" (2025), section "Cross-layer transcoders"; tensor shapes of circuit-tracer's CLT files.
"""

from pathlib import Path

import torch

from cltdb.errors import CltdbError

KINDS = ("clt", "plt")
ACTIVATIONS = ("relu", "jumprelu", "topk", "batchtopk")  # the last two with the threshold that stands in for them at inference
TENSORS_FILE, INFO_FILE, FORMAT_VERSION = "dictionary.safetensors", "dictionary.json", 1


class Dictionary:
    """Encoder and decoders of all layers.

    W_enc [n_layers, n_features, d_model], b_enc [n_layers, n_features], b_dec [n_layers, d_model], W_dec: per source layer
    [n_features, n_layers - source_layer, d_model] (PLT: [n_features, 1, d_model]), threshold [n_layers, n_features] for every
    activation but relu, W_skip [n_layers, d_model, d_model] optional (y += x @ W_skip[layer]). `info` is provenance as JSON
    values.
    """

    def __init__(self, *, kind, activation, W_enc, b_enc, W_dec, b_dec, threshold=None, W_skip=None, info=None):
        self.kind, self.activation, self.info = kind, activation, dict(info or {})
        self.W_enc, self.b_enc, self.b_dec = W_enc, b_enc, b_dec
        self.W_dec, self.threshold, self.W_skip = list(W_dec), threshold, W_skip
        self._check()

    def _check(self):
        def refuse(what, found, expected):
            raise CltdbError(f"dictionary {what}", found=found, expected=expected, do="build it with tensors of one dictionary")

        if self.kind not in KINDS:
            refuse("kind", repr(self.kind), " or ".join(KINDS))
        if self.activation not in ACTIVATIONS:
            refuse("activation", repr(self.activation), ", ".join(ACTIVATIONS))
        if self.W_enc.ndim != 3:
            refuse("W_enc", f"shape {list(self.W_enc.shape)}", "[n_layers, n_features, d_model]")
        L, F, D = self.W_enc.shape
        expected = {"b_enc": (L, F), "b_dec": (L, D)}
        if (self.threshold is None) != (self.activation == "relu"):
            refuse(
                "threshold",
                "none" if self.threshold is None else "one",
                f"one exactly where the activation is not relu ({self.activation})",
            )
        if self.threshold is not None:
            expected["threshold"] = (L, F)
        if self.W_skip is not None:
            expected["W_skip"] = (L, D, D)
        if len(self.W_dec) != L:
            refuse("W_dec", f"{len(self.W_dec)} tensors", f"one per source layer, {L}")
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                refuse(name, f"shape {list(getattr(self, name).shape)}", str(list(shape)))
        for layer, W in enumerate(self.W_dec):
            if tuple(W.shape) != (F, len(self.target_layers(layer)), D):
                refuse(f"W_dec[{layer}]", f"shape {list(W.shape)}", str([F, len(self.target_layers(layer)), D]))

    n_layers = property(lambda self: self.W_enc.shape[0])
    layers = property(lambda self: tuple(self.info.get("layers", range(self.n_layers))))  # those that were trained
    n_features = property(lambda self: self.W_enc.shape[1])
    d_model = property(lambda self: self.W_enc.shape[2])
    dtype = property(lambda self: self.W_enc.dtype)
    device = property(lambda self: self.W_enc.device)

    def target_layers(self, source_layer):
        """The layers a feature of `source_layer` writes to, in the order of W_dec's second axis."""
        return range(source_layer, self.n_layers if self.kind == "clt" else source_layer + 1)

    def pre_activations_layer(self, x, layer):
        """x [..., d_model] to [..., n_features]."""
        return x @ self.W_enc[layer].T + self.b_enc[layer]

    def encode_layer(self, x, layer):
        """x [..., d_model], the MLP input of `layer`, to activations [..., n_features]."""
        h = self.pre_activations_layer(x, layer)
        return h * (h > (0 if self.threshold is None else self.threshold[layer]))

    def pre_activations(self, x):
        """x [..., n_layers, d_model] to [..., n_layers, n_features]."""
        return torch.stack([self.pre_activations_layer(x[..., layer, :], layer) for layer in range(self.n_layers)], dim=-2)

    def encode(self, x):
        """x [..., n_layers, d_model], MLP inputs, to activations [..., n_layers, n_features]."""
        return torch.stack([self.encode_layer(x[..., layer, :], layer) for layer in range(self.n_layers)], dim=-2)

    def decode(self, a, x=None):
        """a [..., n_layers, n_features] to MLP outputs [..., n_layers, d_model]; x [..., n_layers, d_model] where there is a
        skip."""
        return torch.stack(
            [
                self.decode_layer(
                    [a[..., source, :] for source in range(layer + 1)], layer, None if x is None else x[..., layer, :]
                )
                for layer in range(self.n_layers)
            ],
            dim=-2,
        )

    def decode_layer(self, a, layer, x=None):
        """The MLP output of `layer` [..., d_model] from `a`, the activations [..., n_features] of layers 0 to `layer` at
        least."""
        y = self.b_dec[layer]
        for source in range(layer + 1):
            if layer in self.target_layers(source):
                y = y + a[source] @ self.W_dec[source][:, layer - source]
        if self.W_skip is not None:
            if x is None:
                raise CltdbError(
                    "decode", found="no x", expected="the MLP inputs, because this dictionary has W_skip", do="pass x"
                )
            y = y + x @ self.W_skip[layer]
        return y

    def decoder_norms(self, layer):
        """||W_dec|| of each feature of `layer` per target layer [n_features, n_targets], own layer first."""
        return self.W_dec[layer].norm(dim=-1)

    def to(self, *, device=None, dtype=None):
        """The same dictionary on another device or in another dtype; this one is left alone."""
        move = lambda tensor: None if tensor is None else tensor.to(device=device, dtype=dtype)  # noqa: E731
        return Dictionary(
            kind=self.kind,
            activation=self.activation,
            W_enc=move(self.W_enc),
            b_enc=move(self.b_enc),
            W_dec=[move(W) for W in self.W_dec],
            b_dec=move(self.b_dec),
            threshold=move(self.threshold),
            W_skip=move(self.W_skip),
            info=self.info,
        )

    def save(self, directory):
        """Writes `dictionary.safetensors` and, last, `dictionary.json` into `directory`."""
        from cltdb.workspace import write_json, write_safetensors

        tensors = {
            "W_enc": self.W_enc,
            "b_enc": self.b_enc,
            "b_dec": self.b_dec,
            "threshold": self.threshold,
            "W_skip": self.W_skip,
        }
        tensors |= {f"W_dec.{layer}": W for layer, W in enumerate(self.W_dec)}
        write_safetensors(
            Path(directory) / TENSORS_FILE, {name: tensor for name, tensor in tensors.items() if tensor is not None}
        )
        header = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "activation": self.activation,
            "n_layers": self.n_layers,
            "n_features": self.n_features,
            "d_model": self.d_model,
        }
        write_json(Path(directory) / INFO_FILE, {**self.info, **header})


def load_dictionary(path, *, device="cpu"):
    """The dictionary saved in directory `path`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from cltdb.workspace import read_json

    path = Path(path)
    for name in (INFO_FILE, TENSORS_FILE):
        if not (path / name).is_file():
            raise CltdbError(
                str(path),
                found=f"no {name}",
                expected=f"a native dictionary: {TENSORS_FILE} and {INFO_FILE}",
                do="give the directory of a finished train artifact or of Dictionary.save",
            )
    info = read_json(path / INFO_FILE)
    if info.get("format_version") != FORMAT_VERSION:
        raise CltdbError(
            str(path / INFO_FILE),
            found=f"format_version {info.get('format_version')!r}",
            expected=str(FORMAT_VERSION),
            do="load it with the cltdb version that wrote it",
        )
    try:
        tensors = load_file(path / TENSORS_FILE, device=str(device))
    except SafetensorError as error:
        raise CltdbError(
            str(path / TENSORS_FILE),
            found=f"a damaged file ({error})",
            expected="safetensors as cltdb wrote them",
            do="remove the artifact and train again, or restore the file",
        ) from error
    missing = [name for name in ("W_enc", "b_enc", "b_dec", "W_dec.0") if name not in tensors]
    if missing:
        raise CltdbError(
            str(path / TENSORS_FILE),
            found=f"no tensor {missing[0]}",
            expected="W_enc, b_enc, b_dec and W_dec.{layer}",
            do="give a native dictionary",
        )
    W_dec = [tensors[f"W_dec.{layer}"] for layer in range(tensors["W_enc"].shape[0]) if f"W_dec.{layer}" in tensors]
    return Dictionary(
        kind=info["kind"],
        activation=info["activation"],
        W_dec=W_dec,
        info=info,
        **{name: tensors.get(name) for name in ("W_enc", "b_enc", "b_dec", "threshold", "W_skip")},
    )


def check_fits(dictionary, lm):
    """CltdbError where a dictionary was trained on a model of another name (the part after the last slash), depth or width, or reads
    another MLP input."""
    of_model = dictionary.info.get("model_id")
    if of_model and _last_part(of_model) != _last_part(lm.model_id):
        raise CltdbError(
            "dictionary",
            found=f"one of the model {of_model}",
            expected=f"one of {lm.model_id}",
            do="give the dictionary that was trained on this model",
        )
    found, expected = (dictionary.n_layers, dictionary.d_model), (lm.n_layers, lm.d_model)
    if found != expected:
        raise CltdbError(
            "dictionary",
            found="{} layers of width {}".format(*found),
            expected=f"the {expected[0]} layers of width {expected[1]} of {lm.model_id}",
            do="give the dictionary that was trained on this model",
        )
    mlp_input = dictionary.info.get("mlp_input", lm.mlp_input)
    if mlp_input != lm.mlp_input:
        raise CltdbError(
            "dictionary",
            found=f"one that reads the MLP input {mlp_input!r}",
            expected=f"{lm.mlp_input!r}, as {lm.model_id} was loaded",
            do=f"load the model with mlp_input={mlp_input!r}",
        )


def _last_part(model_id):
    return str(model_id).rstrip("/").rpartition("/")[2].lower()
