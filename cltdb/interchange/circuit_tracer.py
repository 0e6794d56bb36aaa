"""circuit-tracer's directories: a CLT as one encoder and one decoder file per layer, a PLT ("transcoder set") as one file per layer.

Source: circuit_tracer/transcoder/cross_layer_transcoder.py, single_layer_transcoder.py and activation_functions.py. Files with a threshold
mean JumpReLU, those without ReLU. `activation: topk` with `k` in config.yaml means top-k per token, for a PLT only. Where fewer than k
pre-activations are positive, circuit-tracer keeps negative ones and cltdb none. A CLT has no skip connection there. Biases b_dec_i belong
to the output of layer i.

`transcoders:` in config.yaml lists one file per layer, local or on the Hub, in place of the files of the directory; these may be Gemma
Scope's. Its first version is npz (W_enc, W_dec, b_enc, b_dec, threshold), its second safetensors (w_enc, w_dec, b_enc, b_dec, threshold,
affine_skip_connection), a PLT or, with w_dec [n_features, n_layers, d_model], a CLT. Two things follow a description and were not checked
against a real file: the second axis of such a w_dec counts layers from 0 (entries before the file's own layer are left out), and
affine_skip_connection is applied as x @ W in both kinds. Encoders are taken for [d_model, n_features] unless their shape says otherwise.
"""

from pathlib import Path

from cltdb.errors import CltdbError
from cltdb.interchange.files import (
    check_settings,
    check_sizes,
    check_tensors,
    numbered,
    read_arrays,
    read_settings,
    read_tensors,
    refuse_chosen_layers,
    refuse_sae,
    refuse_top_k,
    stated_k,
    tensor,
    transposed,
    without_gaps,
)
from cltdb.interchange.hook_points import info_of, input_of, output_of
from cltdb.interchange.hub import local_file
from cltdb.model.parts import DictionaryParts
from cltdb.tensor_files import Pieces

SETTINGS, CLT, PLT = "config.yaml", "cross_layer_transcoder", "transcoder_set"
HOOKS, SIZES = ("feature_input_hook", "feature_output_hook"), ("n_layers", "d_transcoder", "d_model")
READ = ("model_name", "model_kind", *HOOKS, "transcoders", "activation", "k", *SIZES)
NEUTRAL = ("scan", "scan_name", "repo_id", "revision", "subfolder", "dtype", "name", "description", "license", "url")
ACTIVATIONS = {"relu": "relu", "jumprelu": "jumprelu", "jump_relu": "jumprelu", "topk": "topk"}
PLT_TENSORS = ("W_enc", "W_dec", "b_enc", "b_dec", "activation_function.threshold", "W_skip", "k")
GEMMA_SCOPE_TENSORS = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold", "affine_skip_connection")


def parts(directory):
    """The `DictionaryParts` of a directory with its `config.yaml`, or without one where its files say which kind it is."""
    directory = Path(directory)
    settings = _settings(directory)
    encoders, listed = numbered(directory, r"W_enc_(\d+)\.safetensors"), settings.get("transcoders")
    kind = settings.get("model_kind", CLT if encoders else PLT)
    if kind not in (CLT, PLT):
        raise CltdbError(str(directory / SETTINGS), found=f"model_kind {kind!r}", expected=f"{CLT} or {PLT}", do="choose another")
    if encoders and listed:
        found, expected = f"transcoders: {len(listed)} files, beside W_enc_0.safetensors and the like", "one of the two"
        raise CltdbError(str(directory / SETTINGS), found=found, expected=expected, do="take out what is not of this dictionary")
    if kind == CLT and not listed:
        files, read = encoders, _clt_layer
        without_gaps(files, directory, "W_enc_0.safetensors, W_enc_1.safetensors, …")
    else:
        files, read = numbered(directory, r"layer_(\d+)\.safetensors"), _plt_layer if kind == PLT else _gemma_scope_clt_layer
        if listed:
            where = f"{directory / SETTINGS} transcoders"
            files = {layer: local_file(path, root=directory, where=where) for layer, path in enumerate(listed)}
        without_gaps(files, directory, "layer_0.safetensors, layer_1.safetensors, …")
    _refuse_other_files(directory, files, with_decoders=read is _clt_layer)
    layers, shape = [], (None, None)
    for layer, path in sorted(files.items()):
        layers.append(read(path, layer, shape=shape, n_layers=len(files)))
        shape = tuple(layers[0]["W_enc"].shape)
    check_sizes(settings, directory / SETTINGS, dict(zip(SIZES, (len(layers), *shape), strict=True)))
    activation, k = _activation(settings, directory / SETTINGS, layers, [layer.pop("k", None) for layer in layers])
    hooks = input_of(settings.get("feature_input_hook"), directory / SETTINGS)
    hooks |= output_of(settings.get("feature_output_hook"), directory / SETTINGS)
    return DictionaryParts(
        kind="clt" if kind == CLT else "plt",
        activation=activation,
        k=k,
        layers=layers,
        info=info_of(settings.get("model_name"), hooks, "circuit-tracer"),
    )


def _activation(settings, path, layers, ks):
    """(activation, k or None) of what is stated and what the layers' tensors say. ks: per layer the k in its file, or None."""
    stated, k = settings.get("activation"), settings.get("k")
    found = "jumprelu" if any(layer["threshold"] is not None for layer in layers) else "relu" if ks[0] is None else "topk"
    if stated is not None and (not isinstance(stated, str) or stated not in ACTIVATIONS):
        expected = ", ".join(ACTIVATIONS)
        raise CltdbError(str(path), found=f"activation {stated!r}", expected=expected, do="choose another dictionary")
    activation = found if stated is None else ACTIVATIONS[stated]
    if activation != found and (activation, found) != ("topk", "relu"):
        raise CltdbError(
            str(path),
            found=f"activation {stated!r} where the tensors are those of {found}",
            expected="a threshold per feature for jumprelu and none for relu and topk",
            do="download or restore the files",
        )
    if activation == "topk":
        k = stated_k(ks[0] if k is None else k, len(layers[0]["b_enc"]), path)
    if set(ks) - {None} and set(ks) != {k} or (k is not None and activation != "topk"):
        what = f"k {k!r} with activation {activation}" + (f" and {ks} in the layers' files" if set(ks) - {None} else "")
        raise CltdbError(str(path), found=what, expected="one k, with activation: topk", do="restore the file, or mend it")
    return activation, k


def _refuse_other_files(directory, files, *, with_decoders):
    """Refuses files of tensors in the directory that are not read: `files` {layer: path}, for a CLT with the decoders beside them."""
    known = {path.resolve() for path in files.values()}
    known |= {path.with_name(f"W_dec_{layer}.safetensors").resolve() for layer, path in files.items() if with_decoders}
    others = [path for path in sorted(directory.iterdir()) if path.suffix == ".safetensors" and path.resolve() not in known]
    if others:
        raise CltdbError(
            str(directory),
            found=f"{others[0].name}, which belongs to none of the {len(files)} layers",
            expected="files of layers 0, 1, 2, … and of these alone",
            do=f"say in {SETTINGS} which kind it is (model_kind), download missing files, or take this one out",
        )


def _settings(directory):
    settings = read_settings(directory / SETTINGS) if (directory / SETTINGS).is_file() else {}
    check_settings(settings, directory / SETTINGS, read=READ, neutral=NEUTRAL)
    listed = settings.get("transcoders") or []
    if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed):
        raise CltdbError(
            f"{directory / SETTINGS} transcoders", found=repr(listed), expected="a list of files, one per layer", do="mend it"
        )
    return settings


# A layer of each kind of file. shape: (n_features, d_model) of the first layer, (None, None) for that itself.


def _clt_layer(path, layer, *, shape, n_layers):
    tensors, decoder = read_tensors(path), path.with_name(f"W_dec_{layer}.safetensors")
    decoders = read_tensors(decoder)
    check_tensors(tensors, path, [f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec", "threshold")])
    check_tensors(decoders, decoder, [f"W_dec_{layer}"])
    n_features, d_model = tensor(tensors, f"W_enc_{layer}", path, shape=shape).shape
    return {
        "W_enc": tensors[f"W_enc_{layer}"],
        "b_enc": tensor(tensors, f"b_enc_{layer}", path, shape=(n_features,)),
        "W_dec": tensor(decoders, f"W_dec_{layer}", decoder, shape=(n_features, n_layers - layer, d_model)),
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
    check_tensors(tensors, path, PLT_TENSORS)
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
        "k": int(tensor(tensors, "k", path, shape=())) if "k" in tensors else None,
    }


def _gemma_scope_clt_layer(path, layer, *, shape, n_layers):
    tensors = read_tensors(path)
    found = _gemma_scope(tensors, path, shape)
    n_features, d_model = found["W_enc"].shape
    return found | {"W_dec": _spelled(tensors, "w_dec", path, shape=(n_features, n_layers, d_model))[:, layer:]}


def _gemma_scope(tensors, path, shape):
    """All of a layer but its decoders."""
    check_tensors([name.lower() for name in tensors], path, GEMMA_SCOPE_TENSORS)
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
    """Writes the files of `parts`. Fixed thresholds of batchtopk become JumpReLU thresholds."""
    from cltdb.engine.workspace import write_safetensors, writing
    from cltdb.engine.yaml_text import dump

    directory, d = Path(directory), dictionary
    refuse_sae(d, "circuit-tracer")
    if d.kind == "clt" and d.W_skip is not None:
        raise CltdbError(
            "export to circuit-tracer",
            found="a clt with a skip connection",
            expected="a clt without one: its files have no place for it",
            do="export in the format cltdb, or train with skip: false",
        )
    if d.kind == "clt":
        refuse_top_k(d, "circuit-tracer, a clt")
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
        "feature_input_hook": d.sites[0].hook,
        "feature_output_hook": d.info.get("output_hook", "hook_mlp_out"),
        "scan": d.info.get("dict_id", directory.name),
    }
    settings |= {} if d.k is None else {"activation": "topk", "k": d.k}
    with writing(directory / SETTINGS) as aside:
        aside.write_text(dump(settings, sort_keys=False), encoding="utf-8")
