"""SAELens's transcoders: one folder per layer with `cfg.json` and `sae_weights.safetensors`; a cross-layer one cannot be written so.

Source: sae_lens/saes/transcoder.py. W_enc [d_in, d_sae], W_dec [d_sae, d_out], W_skip [d_out, d_in] applied as x @ W_skip.T; the layer
is that of the hook point in the settings' metadata, where we also say how many layers the model has.
"""

import json
import re
from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.interchange.files import read_settings, read_tensors, tensor
from cltdb.interchange.hook_points import hook_of, info_of, input_of, output_of
from cltdb.model.parts import DictionaryParts

SETTINGS, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
UNSUPPORTED = {"apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none"}


def parts(directory):
    """The `DictionaryParts` of the layers' folders in `directory`; layers that are missing have no features (`Dictionary.layers`)."""
    directory = Path(directory)
    layers, about = {}, {}
    for path in sorted(directory.rglob(SETTINGS)):
        layer, facts, tensors = _layer(path)
        if layer in layers:
            raise CltdbError(
                str(directory),
                found=f"two transcoders of layer {layer}",
                expected="one per layer",
                do="give a folder with one of each",
            )
        layers[layer] = tensors
        for name, value in facts.items():
            if about.setdefault(name, value) != value:
                raise CltdbError(
                    str(path), found=f"{name} {value!r}", expected=f"{about[name]!r}, as in the others", do="take it out"
                )
    if not layers:
        raise CltdbError(
            str(directory), found=f"no {SETTINGS}", expected="a folder per layer", do="name the format that it is in"
        )
    n_layers = max(max(layers) + 1, about["n_layers"] or 0)
    some = next(iter(layers.values()))
    blank = {name: None if part is None else torch.zeros(1, dtype=part.dtype).expand(part.shape) for name, part in some.items()}
    return DictionaryParts(
        kind="plt",
        activation="relu" if some["threshold"] is None else "jumprelu",
        layers=[layers.get(layer, blank) for layer in range(n_layers)],
        info=info_of(about["model_name"], about["hooks"], "saelens")
        | ({} if len(layers) == n_layers else {"layers": sorted(layers)}),
    )


def _layer(path):
    """(layer, what all layers must share, {name: tensor}) of one transcoder's settings and weights."""
    settings, weights = read_settings(path), path.with_name(WEIGHTS)
    architecture, metadata = settings.get("architecture"), settings.get("metadata") or {}
    if not isinstance(metadata, dict) or not isinstance(metadata.get("n_layers"), int | None):
        raise CltdbError(
            f"{path} metadata", found=repr(metadata), expected="names and values, n_layers a number", do="restore the file"
        )
    if architecture not in ARCHITECTURES:
        raise CltdbError(
            str(path), found=f"architecture {architecture!r}", expected=", ".join(ARCHITECTURES), do="choose another"
        )
    for name, plain in UNSUPPORTED.items():
        if settings.get(name) not in (plain, None):
            raise CltdbError(str(path), found=f"{name} {settings[name]!r}", expected=repr(plain), do="choose another dictionary")
    hook, hook_out = metadata.get("hook_name"), metadata.get("hook_name_out")
    number, number_out = (re.search(r"blocks\.(\d+)\.", str(name)) for name in (hook, hook_out))
    if number and number_out and number[1] != number_out[1]:
        raise CltdbError(
            str(path),
            found=f"features that read {hook} and write {hook_out}",
            expected="one layer",
            do="choose a dictionary of single MLPs",
        )
    if not number:
        raise CltdbError(
            str(path),
            found=f"hook_name {hook!r}",
            expected="blocks.<layer>.…",
            do="choose a dictionary of an MLP of a known layer",
        )
    tensors = read_tensors(weights)
    d_model, n_features = tensor(tensors, "W_enc", weights, shape=(None, None)).shape
    skip = tensor(tensors, "W_skip", weights, shape=(d_model, d_model), optional="skip" not in architecture)
    return (
        int(number[1]),
        {
            "model_name": metadata.get("model_name"),
            "n_layers": metadata.get("n_layers"),
            "hooks": input_of(_hook_of_transformers(metadata) or hook, path) | output_of(hook_out, path),
            "sizes": [n_features, d_model],
        },
        {
            "W_enc": tensors["W_enc"].T,
            "b_enc": tensor(tensors, "b_enc", weights, shape=(n_features,)),
            "W_dec": tensor(tensors, "W_dec", weights, shape=(n_features, d_model))[:, None],
            "b_dec": tensor(tensors, "b_dec", weights, shape=(d_model,)),
            "threshold": tensor(tensors, "threshold", weights, shape=(n_features,), optional="jumprelu" not in architecture),
            "W_skip": None if skip is None else skip.T,
        },
    )


def _hook_of_transformers(metadata):
    """`mlp.hook_in` where the settings name the module of transformers that is read, and it is the norm before the MLP: Gemma Scope 2
    calls its output hook_mlp_in, which TransformerLens has before that norm."""
    module = str(metadata.get("hf_hook_name"))
    return "mlp.hook_in" if module.endswith(("pre_feedforward_layernorm.output", "ln_2.output", "mlp.input")) else None


def save(dictionary, directory):
    """Writes one folder per layer, `layer_<n>`. Fixed thresholds of topk and batchtopk become JumpReLU thresholds."""
    from cltdb.workspace import write_safetensors, writing

    d = dictionary
    if d.kind != "plt":
        raise CltdbError("export to saelens", found="a clt", expected="a plt", do="export in the format circuit-tracer or cltdb")
    words = ["jumprelu"] * (d.threshold is not None) + ["skip"] * (d.W_skip is not None) + ["transcoder"]
    architecture = "_".join(words)
    for layer in d.layers:
        folder, hook = Path(directory) / f"layer_{layer}", f"blocks.{layer}.{hook_of(d)}"
        tensors = {"W_enc": d.W_enc[layer].T, "b_enc": d.b_enc[layer], "W_dec": d.W_dec[layer][:, 0], "b_dec": d.b_dec[layer]}
        tensors |= {} if d.threshold is None else {"threshold": d.threshold[layer]}
        tensors |= {} if d.W_skip is None else {"W_skip": d.W_skip[layer].T}
        write_safetensors(folder / WEIGHTS, tensors)
        settings = {
            "architecture": architecture,
            "d_in": d.d_model,
            "d_sae": d.n_features,
            "d_out": d.d_model,
            "dtype": str(d.dtype).removeprefix("torch."),
            "device": "cpu",
            **UNSUPPORTED,
            "metadata": {
                "model_name": d.info.get("model_id", ""),
                "n_layers": d.n_layers,
                "hook_name": hook,
                "hook_name_out": f"blocks.{layer}.{d.info.get('output_hook', 'hook_mlp_out')}",
            },
        }
        with writing(folder / SETTINGS) as aside:
            aside.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
