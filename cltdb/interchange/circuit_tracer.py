"""circuit-tracer's directories: a CLT as one encoder and one decoder file per layer, a PLT ("transcoder set") as one file per layer.

Source: circuit_tracer/transcoder/cross_layer_transcoder.py and single_layer_transcoder.py. A threshold makes an activation JumpReLU, its
absence ReLU; a CLT has no skip connection there. Biases b_dec_i belong to the output of layer i.

`transcoders:` in config.yaml lists one file per layer, local or on the Hub, in place of the files of the directory; these may be Gemma
Scope's. Its first version is npz (W_enc, W_dec, b_enc, b_dec, threshold), its second safetensors (w_enc, w_dec, b_enc, b_dec, threshold,
affine_skip_connection), a PLT or, with w_dec [n_features, n_layers, d_model], a CLT. Written from a description of these, not checked
against a real file: that the second axis of such a w_dec counts layers from 0 (entries before the file's own are left out), and that
affine_skip_connection is applied as x @ W in both kinds. Encoders are taken for [d_model, n_features] unless their shape says otherwise.
"""

from pathlib import Path

from cltdb.errors import CltdbError
from cltdb.interchange.files import (
    numbered,
    read_arrays,
    read_settings,
    read_tensors,
    refuse_chosen_layers,
    tensor,
    transposed,
    without_gaps,
)
from cltdb.interchange.hook_points import hook_of, info_of, input_of, output_of
from cltdb.interchange.hub import HUB, local_file
from cltdb.model.parts import DictionaryParts
from cltdb.tensor_files import Pieces

SETTINGS, CLT, PLT = "config.yaml", "cross_layer_transcoder", "transcoder_set"


def parts(directory):
    """The `DictionaryParts` of a directory with its `config.yaml`, or without one where its files say which kind it is."""
    directory = Path(directory)
    settings = _settings(directory)
    encoders, listed = numbered(directory, r"W_enc_(\d+)\.safetensors"), settings.get("transcoders")
    kind = settings.get("model_kind", CLT if encoders else PLT)
    if kind not in (CLT, PLT):
        raise CltdbError(str(directory / SETTINGS), found=f"model_kind {kind!r}", expected=f"{CLT} or {PLT}", do="choose another")
    if kind == CLT and (encoders or not listed):
        files, read = encoders, _clt_layer
        without_gaps(files, directory, "W_enc_0.safetensors, W_enc_1.safetensors, …")
    else:
        files, read = numbered(directory, r"layer_(\d+)\.safetensors"), _plt_layer if kind == PLT else _gemma_scope_clt_layer
        if listed:
            where = f"{directory / SETTINGS} transcoders"
            files = {layer: local_file(path, root=directory, where=where) for layer, path in enumerate(listed)}
        without_gaps(files, directory, "layer_0.safetensors, layer_1.safetensors, …")
    layers, shape = [], (None, None)
    for layer, path in sorted(files.items()):
        layers.append(read(path, layer, shape=shape, n_layers=len(files)))
        shape = tuple(layers[0]["W_enc"].shape)
    hooks = input_of(settings.get("feature_input_hook"), directory / SETTINGS)
    hooks |= output_of(settings.get("feature_output_hook"), directory / SETTINGS)
    return DictionaryParts(
        kind="clt" if kind == CLT else "plt",
        activation="relu" if layers[0]["threshold"] is None else "jumprelu",
        layers=layers,
        info=info_of(settings.get("model_name"), hooks, "circuit-tracer"),
    )


def _settings(directory):
    settings = read_settings(directory / SETTINGS) if (directory / SETTINGS).is_file() else {}
    listed = settings.get("transcoders") or []
    if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed):
        raise CltdbError(
            f"{directory / SETTINGS} transcoders", found=repr(listed), expected="a list of files, one per layer", do="mend it"
        )
    return settings


def listed_files(directory):
    """The local files that `config.yaml` names."""
    paths = (directory / path for path in _settings(directory).get("transcoders") or [] if not path.startswith(HUB))
    return [path for path in paths if path.is_file()]


# A layer of each kind of file. shape: (n_features, d_model) of the first layer, (None, None) for that itself.


def _clt_layer(path, layer, *, shape, n_layers):
    tensors, decoder = read_tensors(path), path.with_name(f"W_dec_{layer}.safetensors")
    n_features, d_model = tensor(tensors, f"W_enc_{layer}", path, shape=shape).shape
    return {
        "W_enc": tensors[f"W_enc_{layer}"],
        "b_enc": tensor(tensors, f"b_enc_{layer}", path, shape=(n_features,)),
        "W_dec": tensor(read_tensors(decoder), f"W_dec_{layer}", decoder, shape=(n_features, n_layers - layer, d_model)),
        "b_dec": tensor(tensors, f"b_dec_{layer}", path, shape=(d_model,)),
        "threshold": tensor(tensors, f"threshold_{layer}", path, shape=(n_features,), optional=True),
        "W_skip": None,
    }


def _plt_layer(path, layer, *, shape, n_layers):
    tensors = read_arrays(path) if path.suffix == ".npz" else read_tensors(path)
    if path.suffix == ".npz" or "w_enc" in tensors:
        found = _gemma_scope(tensors, path, shape)
        sizes = tuple(found["W_enc"].shape)
        W_dec = _spelled(tensors, "w_dec", path, shape=sizes)
        one_target = W_dec._replace(shape=(sizes[0], 1, sizes[1])) if isinstance(W_dec, Pieces) else W_dec[:, None]
        return found | {"W_dec": one_target}
    n_features, d_model = tensor(tensors, "W_enc", path, shape=shape).shape
    W_dec = tensor(tensors, "W_dec", path, shape=(None, None))
    if tuple(W_dec.shape) == (d_model, n_features) != (n_features, d_model):  # the files of 2025
        W_dec = W_dec.T
    skip = tensor(tensors, "W_skip", path, shape=(d_model, d_model), optional=True)
    return {
        "W_enc": tensors["W_enc"],
        "b_enc": tensor(tensors, "b_enc", path, shape=(n_features,)),
        "W_dec": tensor({"W_dec": W_dec}, "W_dec", path, shape=(n_features, d_model))[:, None],
        "b_dec": tensor(tensors, "b_dec", path, shape=(d_model,)),
        "threshold": tensor(tensors, "activation_function.threshold", path, shape=(n_features,), optional=True),
        "W_skip": None if skip is None else skip.T,
    }


def _gemma_scope_clt_layer(path, layer, *, shape, n_layers):
    tensors = read_tensors(path)
    found = _gemma_scope(tensors, path, shape)
    n_features, d_model = found["W_enc"].shape
    return found | {"W_dec": _spelled(tensors, "w_dec", path, shape=(n_features, n_layers, d_model))[:, layer:]}


def _gemma_scope(tensors, path, shape):
    """All of a layer but its decoders."""
    (n_features,), (d_model,) = (
        _spelled(tensors, name, path, shape=(size,)).shape for name, size in zip(("b_enc", "b_dec"), shape, strict=True)
    )
    W_enc = _spelled(tensors, "w_enc", path, shape=(None, None))
    if tuple(W_enc.shape) != (n_features, d_model) or n_features == d_model:
        W_enc = transposed(_spelled(tensors, "w_enc", path, shape=(d_model, n_features)))
    return {
        "W_enc": W_enc,
        "b_enc": _spelled(tensors, "b_enc", path),
        "b_dec": _spelled(tensors, "b_dec", path),
        "threshold": _spelled(tensors, "threshold", path, shape=(n_features,)),
        "W_skip": _spelled(tensors, "affine_skip_connection", path, shape=(d_model, d_model), optional=True),
    }


def _spelled(tensors, name, path, **options):
    """`tensor` of a name in upper or lower case."""
    return tensor(tensors, next((other for other in tensors if other.lower() == name), name), path, **options)


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
        "feature_output_hook": d.info.get("output_hook", "hook_mlp_out"),
        "scan": d.info.get("dict_id", directory.name),
    }
    if d.kind == "plt":
        settings["transcoders"] = [f"layer_{layer}.safetensors" for layer in range(d.n_layers)]
    with writing(directory / SETTINGS) as aside:
        aside.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
