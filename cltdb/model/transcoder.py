"""The dictionary: a cross-layer transcoder (CLT), its per-layer case (PLT) or a sparse autoencoder per layer (SAE), in model units.

A feature reads the MLP input of its source layer and writes to the MLP outputs of that layer and (CLT) every later one:
    h[s] = x[s] W_enc[s]^T + b_enc[s];  a[s] = h[s] where h[s] > threshold[s], else 0;  y[t] = b_dec[t] + sum_{s<=t} a[s]
    W_dec[s][:, t-s]
An SAE has the tensors of a PLT; its features read and reconstruct one place (`Dictionary.reads`), and y there stands for that place.
With activation topk, a[s] = h[s] where h[s] is positive and among the k largest of its token and layer.
Source: Anthropic, "Circuit Tracing" (2025), section "Cross-layer transcoders"; tensor shapes of circuit-tracer's CLT files.

Memory: a dictionary that was loaded is mapped from its file (tensor_files.py). Encoding reads one layer's encoder at a time; decoding reads
the rows of active features, READ_BYTES at a time. Where the computation has another dtype or device (`computing`), only what is read is
converted. Beyond activations and outputs a computation therefore holds one layer's encoder or twice READ_BYTES, whichever is larger,
however large the decoders are. Attribution holds edges.HELD_BYTES more.
"""

import copy
from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.model.kinds import KINDS, MLP_OUTPUT, READS, both_sides, reads_of
from cltdb.model.nonlinearity import among_largest
from cltdb.model.parts import FORMAT_VERSION, HEADER, INFO, INFO_FILE, PROVENANCE, TENSORS_FILE, DictionaryParts
from cltdb.model.sites import sites_of
from cltdb.model.sparse import Pairs, decode, pair_dots
from cltdb.tensor_files import whole

TENSORS, OPTIONAL_TENSORS = ("W_enc", "b_enc", "b_dec", "threshold", "W_skip"), ("threshold", "W_skip")
SIZES = ("n_layers", "n_features", "d_model")
ACTIVATIONS = ("relu", "jumprelu", "topk", "batchtopk")
WITH_THRESHOLD = ("jumprelu", "batchtopk")  # batchtopk selects by a fixed threshold at inference
READ_BYTES = 2**28
DEVICE_SHARE = 0.5  # the share of an accelerator's free memory that encoders and decoders may take


class Dictionary:
    """Encoder and decoders of all layers.

    kind: clt, plt or sae; activation: relu, jumprelu, batchtopk or topk. W_enc [n_layers, n_features, d_model], b_enc [n_layers, n_features],
    b_dec [n_layers, d_model], W_dec: per source layer [n_features, n_layers - source_layer, d_model] (PLT, SAE: [n_features, 1, d_model]),
    threshold [n_layers, n_features] for jumprelu and batchtopk, k for topk, W_skip [n_layers, d_model, d_model] optional (y += x @ W_skip[layer]).
    `info` is provenance as JSON values. `dtype` and `device` are those of the computation.
    """

    def __init__(self, *, kind, activation, W_enc, b_enc, W_dec, b_dec, threshold=None, k=None, W_skip=None, info=None):
        self.kind, self.activation, self.k, self.info = kind, activation, k, dict(info or {})
        self.W_enc, self.b_enc, self.b_dec = W_enc, b_enc, b_dec
        self.W_dec, self.threshold, self.W_skip = list(W_dec), threshold, W_skip
        self._check()
        if self.reconstructs:
            self.info.setdefault("reads", self.reads)  # said to all that read `info` alone, such as `sites_of`
        self.dtype, self.device = W_enc.dtype, W_enc.device

    def _check(self):
        def refuse(what, found, expected):
            raise CltdbError(f"dictionary {what}", found=found, expected=expected, do="build it with tensors of one dictionary")

        if self.kind not in KINDS:
            refuse("kind", repr(self.kind), " or ".join(KINDS))
        if self.reads not in READS:
            refuse("reads", repr(self.reads), ", ".join(READS))
        if self.reconstructs and self.W_skip is not None:
            refuse("W_skip", "one with kind sae", "none: a path from what is reconstructed to itself explains nothing")
        if self.activation not in ACTIVATIONS:
            refuse("activation", repr(self.activation), ", ".join(ACTIVATIONS))
        if self.W_enc.ndim != 3:
            refuse("W_enc", f"shape {list(self.W_enc.shape)}", "[n_layers, n_features, d_model]")
        L, F, D = self.W_enc.shape
        expected = {"b_enc": (L, F), "b_dec": (L, D)}
        if (self.threshold is not None) != (self.activation in WITH_THRESHOLD):
            refuse(
                "threshold",
                f"{'none' if self.threshold is None else 'one'} with activation {self.activation}",
                f"one exactly where the activation is {' or '.join(WITH_THRESHOLD)}; topk has k instead",
            )
        fits = self.k is None if self.activation != "topk" else type(self.k) is int and 1 <= self.k <= F
        if not fits:
            expected = f"a whole number from 1 to the {F} features" if self.activation == "topk" else "none, as only topk has it"
            refuse("k", f"{self.k!r} with activation {self.activation}", expected)
        if self.threshold is not None:
            expected["threshold"] = (L, F)
        if self.W_skip is not None:
            expected["W_skip"] = (L, D, D)
        if len(self.W_dec) != L:
            refuse("W_dec", f"{len(self.W_dec)} tensors", f"one per source layer, {L}")
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                refuse(name, f"shape {list(getattr(self, name).shape)}", str(list(shape)))
        sites_of(self.info, L)
        for layer, W in enumerate(self.W_dec):
            if tuple(W.shape) != (F, len(self.target_layers(layer)), D):
                refuse(f"W_dec[{layer}]", f"shape {list(W.shape)}", str([F, len(self.target_layers(layer)), D]))

    n_layers = property(lambda self: self.W_enc.shape[0])
    layers = property(lambda self: tuple(self.info.get("layers", range(self.n_layers))))  # those that were trained
    n_features = property(lambda self: self.W_enc.shape[1])
    d_model = property(lambda self: self.W_enc.shape[2])
    sites = property(lambda self: sites_of(self.info, self.n_layers))  # the `Site` of each layer
    reconstructs = property(lambda self: KINDS[self.kind].reconstructs)

    reads = property(lambda self: reads_of(self.kind, self.info))  # what features read and where they write, of `kinds.READS`
    writes = property(lambda self: self.reads if self.reconstructs else MLP_OUTPUT)

    def sides(self, x, y):
        """(what features read, what they ought to write) of MLP inputs x and outputs y."""
        return both_sides(x, y, self.reads if self.reconstructs else None)

    def read_of(self, x, y):
        """What features read, of MLP inputs x and outputs y."""
        return self.sides(x, y)[0]

    def target_layers(self, source_layer):
        """The layers a feature of `source_layer` writes to, in the order of W_dec's second axis."""
        return range(source_layer, source_layer + KINDS[self.kind].n_targets(source_layer, self.n_layers))

    def encoder(self, layer, features=slice(None)):
        """The encoders of a layer's features [n, d_model], read here."""
        return self._read(self.W_enc[layer], features)

    def decoder(self, layer, features=slice(None), targets=slice(None)):
        """The decoders of a layer's features [n, n_targets, d_model], read here; targets: a slice of W_dec's second axis."""
        return self._read(self.W_dec[layer][:, targets], features)

    def decoder_sum(self, layer, targets=slice(None)):
        """Decoders summed over target layers [n_features, d_model], in float32 at least."""
        return torch.cat([W.sum(dim=1) for W in self._measured(layer, targets)])

    def _read(self, rows, features):
        features = features.to(rows.device) if torch.is_tensor(features) else features
        return rows[features].to(device=self.device, dtype=self.dtype)

    def pre_activations_layer(self, x, layer):
        """x [..., d_model] to [..., n_features]."""
        return x @ self.encoder(layer).T + self.b_enc[layer]

    def pre_activations_at(self, x, layer, token, feature):
        """Pre-activations [n] of each `feature` [n] at its `token` [n] of x [n_tokens, d_model]; tokens ascend. Only the encoders of these
        features are read."""
        features, place = feature.unique(return_inverse=True)
        pairs = Pairs(token, place, n_tokens=len(x), n_features=len(features))
        return pair_dots(x, self.encoder(layer, features), pairs) + self.b_enc[layer, feature]

    def activate(self, h, layers=slice(None)):
        """Pre-activations to activations: h [..., n_layers, n_features], or [..., n_features] of one layer, or of (layer, some features) where the
        activation function is not topk. Silent ones are +0; NaN stays NaN."""
        topk = self.activation == "topk"
        active = among_largest(h, self.k) if topk else h > (0 if self.threshold is None else self.threshold[layers])
        return (h * active).add_(0.0)  # -0.0 + 0.0 is +0

    def threshold_of(self, layer, feature):
        """What a feature's pre-activation must exceed for it to be active. Of topk this is 0; besides, it must be among the k largest."""
        return 0.0 if self.threshold is None else float(self.threshold[layer, feature])

    def encode_layer(self, x, layer):
        """x [..., d_model], the MLP input of `layer`, to activations [..., n_features]."""
        return self.activate(self.pre_activations_layer(x, layer), layer)

    def pre_activations(self, x):
        """x [..., n_layers, d_model] to [..., n_layers, n_features]."""
        self._require("x", x, self.d_model)
        return torch.stack([self.pre_activations_layer(x[..., layer, :], layer) for layer in range(self.n_layers)], dim=-2)

    def encode(self, x):
        """x [..., n_layers, d_model], MLP inputs, to activations [..., n_layers, n_features]."""
        self._require("x", x, self.d_model)
        return torch.stack([self.encode_layer(x[..., layer, :], layer) for layer in range(self.n_layers)], dim=-2)

    def written(self, a, layer, targets=slice(None)):
        """What activations a [..., n_features] of `layer` add to its target layers' outputs [..., n_targets, d_model]; targets: a slice
        of these. Of the decoders, rows of features that are active somewhere in `a` are read."""
        flat, n_targets = a.reshape(-1, self.n_features), len(self.target_layers(layer)[targets])
        out = torch.zeros(len(flat), n_targets, self.d_model, dtype=self.dtype, device=self.device)
        token, feature = flat.nonzero(as_tuple=True)
        value, active = flat[token, feature], feature.bincount(minlength=self.n_features).nonzero()[:, 0]
        n_rows = max(1, READ_BYTES // (n_targets * self.d_model * self.dtype.itemsize))
        for features in active.split(n_rows) if len(active) else ():
            here = (feature >= features[0]) & (feature <= features[-1])
            place = torch.searchsorted(features, feature[here])
            pairs = Pairs(token[here], place, n_tokens=len(flat), n_features=len(features))
            out = out + decode(value[here], pairs, self.decoder(layer, features, targets))
        return out.view(*a.shape[:-1], n_targets, self.d_model)

    def decode(self, a, x=None):
        """a [..., n_layers, n_features] to MLP outputs [..., n_layers, d_model]; x [..., n_layers, d_model] where there is a
        skip."""
        self._require("a", a, self.n_features)
        outputs = Outputs(self, self.b_dec)
        for layer in range(self.n_layers):
            outputs.add(a[..., layer, :], layer)
        return outputs.together(x)

    def _require(self, name, values, width):
        """CltdbError where the last two axes are not layers and `width`: rows of one layer would pass for layers."""
        if tuple(values.shape[-2:]) != (self.n_layers, width):
            raise CltdbError(
                f"dictionary {name}",
                found=f"a tensor of shape {list(values.shape)}",
                expected=f"[..., {self.n_layers}, {width}]: all layers",
                do="give the values of every layer, or ask one layer with encode_layer or decode_layer",
            )

    def decode_layer(self, a, layer, x=None):
        """The MLP output of `layer` [..., d_model] from `a`, the activations [..., n_features] of layers 0 to `layer` at
        least."""
        y = self.b_dec[layer]
        for source in range(layer + 1):
            if layer in self.target_layers(source):
                y = y + self.written(a[source], source, slice(layer - source, layer - source + 1)).squeeze(-2)
        return self.with_skip(y, layer, x)

    def with_skip(self, y, layer, x):
        """The MLP output y of `layer` [..., d_model] with what the skip path adds at x [..., d_model], where there is one."""
        if self.W_skip is None:
            return y
        if x is None:
            raise CltdbError("decode", found="no x", expected="the MLP inputs, because this dictionary has W_skip", do="pass x")
        return y + x @ self.W_skip[layer]

    def decoder_norms(self, layer):
        """||W_dec|| of each feature of `layer` per target layer [n_features, n_targets], own layer first, in float32 at least."""
        return torch.cat([W.norm(dim=-1) for W in self._measured(layer)])

    def _measured(self, layer, targets=slice(None)):
        """The decoders of a layer in float32 at least, READ_BYTES of them at a time."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        for W in self.W_dec[layer][:, targets].split(max(1, READ_BYTES // max(self.W_dec[layer][0].nbytes, 1))):
            yield W.to(device=self.device, dtype=dtype)

    def to(self, *, device=None, dtype=None):
        """The same dictionary on another device or in another dtype, copied whole; this one is left alone."""
        device = self.device if device is None else device
        move = lambda tensor: None if tensor is None else tensor.to(device=device, dtype=dtype)  # noqa: E731
        return Dictionary(
            kind=self.kind,
            activation=self.activation,
            W_enc=self.W_enc.to(device=device, dtype=dtype or self.dtype),
            b_enc=move(self.b_enc),
            W_dec=[W.to(device=device, dtype=dtype or self.dtype) for W in self.W_dec],
            b_dec=move(self.b_dec),
            threshold=move(self.threshold),
            k=self.k,
            W_skip=move(self.W_skip),
            info=self.info,
        )

    def computing(self, *, device=None, dtype=None):
        """The same dictionary for computation in another dtype or on another device. Encoders and decoders are shared: they keep their
        dtype, and what is read is converted. They move to an accelerator where they fit (DEVICE_SHARE), else only what is read."""
        out = copy.copy(self)
        out.device, out.dtype = torch.device(self.device if device is None else device), dtype or self.dtype
        for name in ("b_enc", "b_dec", "threshold", "W_skip"):
            value = getattr(self, name)
            setattr(out, name, None if value is None else value.to(device=out.device, dtype=dtype))
        if self._fits_on(out.device):
            out.W_enc, out.W_dec = self.W_enc.to(out.device), [W.to(out.device) for W in self.W_dec]
        return out

    def _fits_on(self, device):
        """Whether encoders and decoders are there already, or can be."""
        if device.type != "cuda" or self.W_enc.device.type == "cuda":
            return True
        return self.W_enc.nbytes + sum(W.nbytes for W in self.W_dec) <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]

    @classmethod
    def from_parts(cls, parts):
        """The dictionary made of `DictionaryParts`: decoders that are mapped stay so, everything else is in memory."""
        tensors = {name: whole(value) for name, value in parts.over_layers().items()}
        W_dec = [whole(layer["W_dec"]) for layer in parts.layers]
        return cls(kind=parts.kind, activation=parts.activation, k=parts.k, W_dec=W_dec, info=parts.info, **tensors)

    def parts(self):
        """The same as `DictionaryParts`."""
        by_layer = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        by_layer |= {"threshold": self.threshold, "W_skip": self.W_skip}
        layers = [
            {name: None if value is None else value[layer] for name, value in by_layer.items()} for layer in range(self.n_layers)
        ]
        return DictionaryParts(kind=self.kind, activation=self.activation, k=self.k, layers=layers, info=self.info)

    def save(self, directory):
        """Writes `dictionary.safetensors` and, last, `dictionary.json` into `directory`."""
        self.parts().save(directory)


class Outputs:
    """The MLP outputs of all layers, as activations write them. Source layers are added one by one, first to last; their activations are
    not held.

    start: the outputs without any activation, [d_model] or [..., d_model] per layer.
    """

    def __init__(self, dictionary, start):
        self.dictionary, self._sums = dictionary, list(start)

    def sum(self, layer):
        """What the activations so far write to `layer` [..., d_model], with the start."""
        return self._sums[layer]

    def add(self, a, layer):
        """Takes in a [..., n_features], the activations of `layer`."""
        for target, y in zip(self.dictionary.target_layers(layer), self.dictionary.written(a, layer).unbind(-2), strict=True):
            self._sums[target] = self._sums[target] + y

    def output(self, layer, x=None):
        """The MLP output of `layer` [..., d_model] once its activations are in; x [..., d_model] where there is a skip."""
        return self.dictionary.with_skip(self._sums[layer], layer, x)

    def together(self, x=None):
        """The outputs [..., n_layers, d_model] once all activations are in; x of that shape where there is a skip."""
        layers = range(self.dictionary.n_layers)
        return torch.stack([self.output(layer, None if x is None else x[..., layer, :]) for layer in layers], dim=-2)


def load_dictionary(path, *, device="cpu"):
    """The dictionary saved in directory `path`, mapped into memory; on an accelerator, there where it fits (`Dictionary.computing`)."""
    from safetensors import SafetensorError

    from cltdb.engine.integrity import checked
    from cltdb.engine.workspace import read_json
    from cltdb.tensor_files import mapped_tensors

    path = Path(path)
    for name in (INFO_FILE, TENSORS_FILE):
        if not (path / name).is_file():
            raise CltdbError(
                str(path),
                found=f"no {name}",
                expected=f"a native dictionary: {TENSORS_FILE} and {INFO_FILE}",
                do="give the directory of a finished train artifact or of Dictionary.save",
            )
        checked(path / name)
    info = _known_info(read_json(path / INFO_FILE), path / INFO_FILE)
    try:
        tensors = mapped_tensors(path / TENSORS_FILE)
    except SafetensorError as error:
        raise CltdbError(
            str(path / TENSORS_FILE),
            found=f"a damaged file ({error})",
            expected="safetensors as cltdb wrote them",
            do="remove the artifact and train again, or restore the file",
        ) from error
    n_layers = info["n_layers"]
    names = [*TENSORS, *(f"W_dec.{layer}" for layer in range(n_layers))]
    wrong = [f"no tensor {name}" for name in names if name not in tensors and name not in OPTIONAL_TENSORS]
    wrong += [f"the tensor {name}" for name in tensors if name not in names]
    if wrong:
        raise CltdbError(
            str(path / TENSORS_FILE),
            found=wrong[0],
            expected=f"{', '.join(TENSORS)} (the last two where it has them) and W_dec.0 to W_dec.{n_layers - 1}",
            do="give a native dictionary, or load it with the cltdb version that wrote it",
        )
    dictionary = Dictionary(
        kind=info["kind"],
        activation=info["activation"],
        k=info.get("k"),
        W_dec=[tensors[f"W_dec.{layer}"] for layer in range(n_layers)],
        info={name: value for name, value in info.items() if name not in HEADER},
        **{name: tensors.get(name) for name in TENSORS},
    )
    for name in SIZES:
        if getattr(dictionary, name) != info[name]:
            raise CltdbError(
                str(path),
                found=f"{name} {info[name]} in {INFO_FILE}, {getattr(dictionary, name)} in {TENSORS_FILE}",
                expected="both files of one dictionary",
                do="restore the folder",
            )
    return dictionary.computing(device=device)


def _known_info(info, path):
    """The content of `dictionary.json` in the terms of this version, with what stands under `provenance` among the rest. Two things of
    version 1 have other names now: topk with thresholds is jumprelu; ln2.hook_normalized of a dictionary that cltdb trained is
    mlp.hook_in."""
    version = info.get("format_version")
    if version not in (1, FORMAT_VERSION):
        raise CltdbError(
            str(path),
            found=f"format_version {version!r}",
            expected=f"1 or {FORMAT_VERSION}",
            do="load it with the cltdb version that wrote it",
        )
    missing = [name for name in HEADER if name not in info and name != "k"]
    missing += [name for name in SIZES if type(info.get(name)) is not int]
    unknown = [name for name in info if name not in (*HEADER, *INFO)] if version > 1 else []
    if missing or unknown:
        raise CltdbError(
            str(path),
            found=f"no {missing[0]}, or no such value"
            if missing
            else f"{unknown[0]} {info[unknown[0]]!r}, a setting that is not known",
            expected=f"only {', '.join((*HEADER, *INFO))}, as others may change what it computes",
            do=f"load it with the cltdb version that wrote it; free notes stand under {PROVENANCE}",
        )
    if version == 1:
        trained_here = info.get("input_hook") == "ln2.hook_normalized" and "imported" not in info
        info = info | ({"activation": "jumprelu"} if info["activation"] == "topk" else {}) | {"k": None}
        return info | ({"input_hook": "mlp.hook_in"} if trained_here else {})
    return (info.get(PROVENANCE) or {}) | {name: value for name, value in info.items() if name != PROVENANCE}
