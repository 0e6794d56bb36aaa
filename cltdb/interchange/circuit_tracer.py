"""circuit-tracer's directories: a CLT as one encoder and one decoder file per layer, a PLT ("transcoder set") as one file per layer.

Source: circuit_tracer/transcoder/cross_layer_transcoder.py and single_layer_transcoder.py. A threshold makes an activation JumpReLU, its
absence ReLU; a CLT has no skip connection there. Biases b_dec_i belong to the output of layer i.
"""

from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.interchange.files import (
    hook_of,
    info_of,
    mlp_input_of,
    numbered,
    read_settings,
    read_tensors,
    refuse_chosen_layers,
    tensor,
    without_gaps,
)
from cltdb.model.transcoder import Dictionary

SETTINGS, CLT, PLT = "config.yaml", "cross_layer_transcoder", "transcoder_set"


def load(directory):
    """The `Dictionary` in a directory with its `config.yaml`, or without one where its files say which kind it is."""
    directory = Path(directory)
    settings = read_settings(directory / SETTINGS) if (directory / SETTINGS).is_file() else {}
    encoders, layers = numbered(directory, r"W_enc_(\d+)\.safetensors"), numbered(directory, r"layer_(\d+)\.safetensors")
    kind = settings.get("model_kind", CLT if encoders else PLT)
    if kind not in (CLT, PLT):
        raise CltdbError(str(directory / SETTINGS), found=f"model_kind {kind!r}", expected=f"{CLT} or {PLT}", do="choose another")
    read, files = (_clt, encoders) if kind == CLT else (_plt, layers)
    names = "W_enc_0.safetensors, W_enc_1.safetensors, …" if kind == CLT else "layer_0.safetensors, layer_1.safetensors, …"
    without_gaps(files, directory, names)
    mlp_input = mlp_input_of(settings.get("feature_input_hook"), directory / SETTINGS)
    return read(directory, files, info_of(settings.get("model_name"), mlp_input, "circuit-tracer"))


def _clt(directory, files, info):
    n_layers, W_enc, b_enc, b_dec, threshold, W_dec = len(files), [], [], [], [], []
    for layer, path in sorted(files.items()):
        tensors = read_tensors(path)
        W = tensor(tensors, f"W_enc_{layer}", path, shape=W_enc[0].shape if W_enc else (None, None))
        n_features, d_model = W.shape
        W_enc.append(W)
        b_enc.append(tensor(tensors, f"b_enc_{layer}", path, shape=(n_features,)))
        b_dec.append(tensor(tensors, f"b_dec_{layer}", path, shape=(d_model,)))
        threshold.append(tensor(tensors, f"threshold_{layer}", path, shape=(n_features,), optional=True))
        decoder = directory / f"W_dec_{layer}.safetensors"
        W_dec.append(tensor(read_tensors(decoder), f"W_dec_{layer}", decoder, shape=(n_features, n_layers - layer, d_model)))
    return _dictionary("clt", W_enc, b_enc, W_dec, b_dec, threshold, None, info, directory)


def _plt(directory, files, info):
    parts = {"W_enc": [], "b_enc": [], "W_dec": [], "b_dec": [], "threshold": [], "W_skip": []}
    for _, path in sorted(files.items()):
        tensors = read_tensors(path)
        shape = parts["W_enc"][0].shape if parts["W_enc"] else (None, None)
        W_enc = tensor(tensors, "W_enc", path, shape=shape)
        n_features, d_model = W_enc.shape
        W_dec = tensor(tensors, "W_dec", path, shape=(None, None))
        if tuple(W_dec.shape) == (d_model, n_features) != (n_features, d_model):  # the files of 2025
            W_dec = W_dec.T
        if tuple(W_dec.shape) != (n_features, d_model):
            tensor(tensors, "W_dec", path, shape=(n_features, d_model))
        skip = tensor(tensors, "W_skip", path, shape=(d_model, d_model), optional=True)
        found = {
            "W_enc": W_enc,
            "b_enc": tensor(tensors, "b_enc", path, shape=(n_features,)),
            "W_dec": W_dec[:, None],
            "b_dec": tensor(tensors, "b_dec", path, shape=(d_model,)),
            "threshold": tensor(tensors, "activation_function.threshold", path, shape=(n_features,), optional=True),
            "W_skip": None if skip is None else skip.T,
        }
        for name, value in found.items():
            parts[name].append(value)
    return _dictionary("plt", *parts.values(), info, directory)


def _dictionary(kind, W_enc, b_enc, W_dec, b_dec, threshold, W_skip, info, directory):
    def stacked(tensors, name):
        there = [part is not None for part in tensors or []]
        if any(there) and not all(there):
            raise CltdbError(
                str(directory),
                found=f"{name} in some layers only",
                expected=f"a {name} in every layer or in none",
                do="choose a dictionary whose layers are of one kind",
            )
        return torch.stack(tensors).contiguous() if any(there) else None

    threshold = stacked(threshold, "threshold")
    return Dictionary(
        kind=kind,
        activation="relu" if threshold is None else "jumprelu",
        W_enc=torch.stack(W_enc),
        b_enc=torch.stack(b_enc),
        W_dec=[W.contiguous() for W in W_dec],
        b_dec=torch.stack(b_dec),
        threshold=threshold,
        W_skip=stacked(W_skip, "W_skip"),
        info=info,
    )


def save(dictionary, directory):
    """Writes the files of `load`. Fixed thresholds of topk and batchtopk become JumpReLU thresholds."""
    import yaml

    from cltdb.workspace import write_safetensors, writing

    directory, d = Path(directory), dictionary
    if d.kind == "clt" and d.W_skip is not None:
        raise CltdbError(
            "export to circuit-tracer",
            found="a clt with a skip connection",
            expected="none, for which its files have no place",
            do="export in the format cltdb, or train with skip: false",
        )
    refuse_chosen_layers(d, "circuit-tracer")
    for layer in range(d.n_layers):
        threshold = {} if d.threshold is None else d.threshold[layer]
        if d.kind == "clt":
            encoder = {f"W_enc_{layer}": d.W_enc[layer], f"b_enc_{layer}": d.b_enc[layer], f"b_dec_{layer}": d.b_dec[layer]}
            encoder |= {} if d.threshold is None else {f"threshold_{layer}": threshold}
            write_safetensors(directory / f"W_enc_{layer}.safetensors", encoder)
            write_safetensors(directory / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": d.W_dec[layer]})
        else:
            tensors = {"W_enc": d.W_enc[layer], "b_enc": d.b_enc[layer], "W_dec": d.W_dec[layer][:, 0], "b_dec": d.b_dec[layer]}
            tensors |= {} if d.threshold is None else {"activation_function.threshold": threshold}
            tensors |= {} if d.W_skip is None else {"W_skip": d.W_skip[layer].T}
            write_safetensors(directory / f"layer_{layer}.safetensors", tensors)
    settings = {
        "model_name": d.info.get("model_id", ""),
        "model_kind": CLT if d.kind == "clt" else PLT,
        "feature_input_hook": hook_of(d),
        "feature_output_hook": "hook_mlp_out",
        "scan": d.info.get("dict_id", directory.name),
    }
    if d.kind == "plt":
        settings["transcoders"] = [f"layer_{layer}.safetensors" for layer in range(d.n_layers)]
    with writing(directory / SETTINGS) as aside:
        aside.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
