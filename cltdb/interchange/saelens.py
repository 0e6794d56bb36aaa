"""SAELens's transcoders and sparse autoencoders: one folder per layer with `cfg.json` and `sae_weights.safetensors`; a cross-layer transcoder
cannot be written so.

Source: sae_lens/saes/sae.py, standard_sae.py, topk_sae.py, batchtopk_sae.py, jumprelu_sae.py and transcoder.py. W_enc [d_in, d_sae], W_dec
[d_sae, d_out], W_skip [d_out, d_in] applied as x @ W_skip.T; the layer is that of the hook point in the settings' metadata, where we also say
how many layers the model has. JumpReLU comes after a ReLU there: a threshold below 0 acts as 0. With rescale_acts_by_decoder_norm activations
are times the norms of the decoders, which are divided by these: that is folded into the tensors. So is b_dec, which SAEs take from their input
first (apply_b_dec_to_input, their default). A batchtopk checkpoint has one threshold for all features, of the activations as they are scaled.
"""

import json
import re
from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.interchange.files import (
    check_settings,
    check_sizes,
    check_tensors,
    read_settings,
    read_tensors,
    refuse_top_k,
    stated_k,
    tensor,
)
from cltdb.interchange.hook_points import info_of, input_of, output_of, place_of
from cltdb.model.architectures import is_mlp_input
from cltdb.model.parts import DictionaryParts
from cltdb.tensor_files import scaled_rows

SETTINGS, WEIGHTS = "cfg.json", "sae_weights.safetensors"
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
SAES = ("standard", "topk", "jumprelu", "batchtopk")
ARCHITECTURES = (*TRANSCODERS, *SAES)
ACTIVATIONS_OF = {"topk": {"topk"}, "transcoder": {"relu", "topk"}, "skip_transcoder": {"relu", "topk"}}
"""What may be said of the activation function; of all others relu."""
PLAIN = {"apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none"}
OF_METADATA = (
    "model_name",
    "hook_name",
    "hook_name_out",
    "hook_layer",
    "hook_layer_out",
    "hook_head_index",
    "hook_head_index_out",
)
"""Older files have these among the other settings."""
ACTIVATION = ("activation_fn", "activation_fn_str", "activation_fn_kwargs", "k", "rescale_acts_by_decoder_norm")
READ = ("architecture", "d_in", "d_sae", "d_out", "metadata", "apply_b_dec_to_input", *ACTIVATION, *OF_METADATA)
NEUTRAL = (
    *("dtype", "device", "type", "sae_lens_version", "sae_lens_training_version", "context_size", "prepend_bos", "dataset_path"),
    *("dataset_trust_remote_code", "neuronpedia_id", "model_from_pretrained_kwargs", "seqpos_slice", "l1_coefficient", "lp_norm"),
    *(
        "l1_warm_up_steps",
        "l0_coefficient",
        "l0_warm_up_steps",
        "jumprelu_bandwidth",
        "jumprelu_init_threshold",
        "decoder_init_norm",
    ),
    *("jumprelu_sparsity_loss_mode", "jumprelu_tanh_scale", "pre_act_loss_coefficient", "aux_loss_coefficient", "noise_scale"),
    *("mse_loss_normalization", "use_sparse_activations", "topk_threshold_lr"),
)
"""Where it was trained and how."""
FIXED = {name: (value,) for name, value in PLAIN.items() if name != "apply_b_dec_to_input"} | {
    "finetuning_scaling_factor": (False,),
    "use_error_term": (False,),
}
PROCESSING = ("fold_ln", "center_writing_weights", "refactor_factored_attn_matrices")
"""Of metadata.model_from_pretrained_kwargs: what changes the model's own activations at these hook points."""
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip", "topk_threshold")


def parts(directory):
    """The `DictionaryParts` of the layers' folders in `directory`; layers that are missing have no features (`Dictionary.layers`)."""
    directory = Path(directory)
    layers, about = {}, {}
    for path in sorted(directory.rglob(SETTINGS)):
        layer, facts, tensors = _layer(path)
        if layer in layers:
            raise CltdbError(
                str(directory),
                found=f"two dictionaries of layer {layer}",
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
        kind=about["kind"],
        activation=about["activation"],
        k=about["k"],
        layers=[layers.get(layer, blank) for layer in range(n_layers)],
        info=info_of(about["model_name"], about["hooks"], "saelens")
        | ({} if len(layers) == about["n_layers"] else {"layers": sorted(layers)}),
    )


def _layer(path):
    """(layer, what all layers must share, {name: tensor}) of one dictionary's settings and weights."""
    settings, weights = read_settings(path), path.with_name(WEIGHTS)
    check_settings(settings, path, read=READ, neutral=NEUTRAL, fixed=FIXED)
    architecture, metadata = settings.get("architecture"), settings.get("metadata") or {}
    if not isinstance(metadata, dict) or not isinstance(metadata.get("n_layers"), int | None):
        raise CltdbError(
            f"{path} metadata", found=repr(metadata), expected="names and values, n_layers a number", do="restore the file"
        )
    if architecture not in ARCHITECTURES:
        raise CltdbError(
            str(path), found=f"architecture {architecture!r}", expected=", ".join(ARCHITECTURES), do="choose another"
        )
    metadata = _with_older(settings, metadata, path)
    hook, hook_out = metadata.get("hook_name"), metadata.get("hook_name_out")
    is_sae = architecture in SAES
    if is_sae and hook_out not in (None, hook):
        found, expected = (
            f"architecture {architecture} that reads {hook} and writes {hook_out}",
            "one hook point, which it reconstructs",
        )
        raise CltdbError(str(path), found=found, expected=expected, do="choose another dictionary")
    minus_b_dec = settings.get("apply_b_dec_to_input", is_sae)
    if type(minus_b_dec) is not bool or (minus_b_dec and not is_sae):
        found = f"apply_b_dec_to_input {minus_b_dec!r} with architecture {architecture}"
        raise CltdbError(
            str(path), found=found, expected="false for a transcoder, true or false for an SAE", do="choose another dictionary"
        )
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
    named = {
        "threshold": "jumprelu",
        "W_skip": "skip",
        "topk_threshold": "batchtopk",
    }  # what the name of an architecture says there is
    check_tensors(tensors, weights, [name for name in TENSORS if named.get(name, "") in architecture])
    d_model, n_features = tensor(tensors, "W_enc", weights, shape=(None, None)).shape
    check_sizes(settings, path, {"d_in": d_model, "d_sae": n_features, "d_out": d_model})
    activation, k = _activation(settings, path, architecture, n_features)
    skip = tensor(tensors, "W_skip", weights, shape=(d_model, d_model), optional="skip" not in architecture)
    threshold = tensor(tensors, "threshold", weights, shape=(n_features,), optional="jumprelu" not in architecture)
    if architecture == "batchtopk":
        threshold = tensor(tensors, "topk_threshold", weights, shape=()).float().expand(n_features)
    layer = {
        "W_enc": tensors["W_enc"].T,
        "b_enc": tensor(tensors, "b_enc", weights, shape=(n_features,)),
        "W_dec": tensor(tensors, "W_dec", weights, shape=(n_features, d_model))[:, None],
        "b_dec": tensor(tensors, "b_dec", weights, shape=(d_model,)),
        "threshold": None if threshold is None else threshold.clamp(min=0),
        "W_skip": None if skip is None else skip.T,
    }
    if minus_b_dec:
        layer["b_enc"] = layer["b_enc"] - layer["W_enc"].float() @ layer["b_dec"].float()
    hooks = (
        place_of(hook, path) if is_sae else input_of(_hook_of_transformers(metadata) or hook, path) | output_of(hook_out, path)
    )
    return (
        int(number[1]),
        {
            "kind": "sae" if is_sae else "plt",
            "model_name": metadata.get("model_name"),
            "n_layers": metadata.get("n_layers"),
            "hooks": hooks,
            "sizes": [n_features, d_model],
            "activation": activation,
            "k": k,
        },
        _rescaled(layer) if settings.get("rescale_acts_by_decoder_norm") else layer,
    )


def _with_older(settings, metadata, path):
    """The metadata with what older files have among the settings; refused where the two differ or speak of a part of the hook point."""
    older = {name: settings[name] for name in OF_METADATA if settings.get(name) is not None}
    both = {name: value for name, value in metadata.items() if value is not None}
    wrong = [name for name in older if name in both and both[name] != older[name]]
    both = older | both
    wrong += [name for name in ("hook_head_index", "hook_head_index_out") if name in both]
    for name, hook in (("hook_layer", "hook_name"), ("hook_layer_out", "hook_name_out")):
        if name in both and hook in both and f"blocks.{both[name]}." not in str(both[hook]):
            wrong.append(name)
    processing = both.get("model_from_pretrained_kwargs") or settings.get("model_from_pretrained_kwargs") or {}
    if wrong or not isinstance(processing, dict) or any(processing.get(name) for name in PROCESSING):
        found = f"{wrong[0]} {both[wrong[0]]!r}" if wrong else f"model_from_pretrained_kwargs {processing!r}"
        expected = "hook_name and hook_name_out of a whole MLP, one layer, a model without processing"
        raise CltdbError(f"{path} metadata", found=found, expected=expected, do="choose another dictionary")
    return both


def _activation(settings, path, architecture, n_features):
    """(activation, k or None) that the settings state."""
    options, rescaled = settings.get("activation_fn_kwargs") or {}, settings.get("rescale_acts_by_decoder_norm") or False
    stated = [settings.get(name) for name in ("activation_fn", "activation_fn_str")]
    names, jump = {str(name) for name in stated if name is not None}, "jumprelu" in architecture
    ks = [k for k in (settings.get("k"), options.get("k") if isinstance(options, dict) else None) if k is not None]
    names = names or ({"topk"} if architecture == "topk" else set())
    batch = architecture == "batchtopk"  # its k is a mean, which its threshold stands for
    names, ks = ({"relu"}, []) if batch and names <= {"batchtopk", "topk", "relu"} else (names, ks)
    allowed = ACTIVATIONS_OF.get(architecture, {"relu"})
    found = None
    if len(names) > 1 or not names <= allowed:
        found = f"activation_fn {' and '.join(sorted(names))} with architecture {architecture}"
    elif not isinstance(options, dict) or options.keys() - {"k"}:
        found = f"activation_fn_kwargs {options!r}"
    elif len(set(map(repr, ks))) > 1 or (ks and names != {"topk"}):
        found = f"k {' and '.join(map(repr, ks))} with activation_fn {' '.join(names) or 'relu'}"
    elif type(rescaled) is not bool or (rescaled and jump):
        found = f"rescale_acts_by_decoder_norm {rescaled!r} with architecture {architecture}"
    if found:
        expected = "activation_fn relu, or topk with one k; rescale_acts_by_decoder_norm with these alone"
        raise CltdbError(str(path), found=found, expected=expected, do="choose another dictionary")
    if names == {"topk"}:
        return "topk", stated_k(ks[0] if ks else None, n_features, path)
    return "jumprelu" if jump or batch else "relu", None


def _rescaled(layer):
    """The layer with encoders times the norms of their features' decoders, and decoders divided by them; one of norm 0 stays silent."""
    norms = torch.linalg.vector_norm(layer["W_dec"][:, 0], dim=1, dtype=torch.float32)
    inverse = torch.where(norms > 0, 1 / norms, 0)
    return layer | {
        "W_enc": scaled_rows(layer["W_enc"], norms),
        "b_enc": layer["b_enc"] * norms,
        "W_dec": scaled_rows(layer["W_dec"], inverse),
    }


def _hook_of_transformers(metadata):
    """`mlp.hook_in` where the settings name the module of transformers that is read, and it is the norm before the MLP: Gemma Scope 2
    calls its output hook_mlp_in, which TransformerLens has before that norm."""
    return "mlp.hook_in" if is_mlp_input(str(metadata.get("hf_hook_name"))) else None


def save(dictionary, directory):
    """Writes one folder per layer, `layer_<n>`. Fixed thresholds of batchtopk become JumpReLU thresholds."""
    from cltdb.engine.workspace import write_safetensors, writing

    d = dictionary
    if d.kind == "clt":
        raise CltdbError(
            "export to saelens", found="a clt", expected="a plt or an sae", do="export in the format circuit-tracer or cltdb"
        )
    refuse_top_k(d, "saelens")
    if d.threshold is not None and bool((d.threshold < 0).any()):
        found, expected = "a threshold below 0", "thresholds of 0 at least: SAELens applies a ReLU first"
        raise CltdbError("export to saelens", found=found, expected=expected, do="export in the format circuit-tracer or cltdb")
    words = ["jumprelu"] * (d.threshold is not None) + ["skip"] * (d.W_skip is not None) + ["transcoder"] * (not d.reconstructs)
    architecture = "_".join(words) or "standard"
    for layer in d.layers:
        folder, hook = Path(directory) / f"layer_{layer}", f"blocks.{layer}.{d.sites[layer].hook}"
        tensors = {"W_enc": d.W_enc[layer].T, "b_enc": d.b_enc[layer], "W_dec": d.W_dec[layer][:, 0], "b_dec": d.b_dec[layer]}
        tensors |= {} if d.threshold is None else {"threshold": d.threshold[layer]}
        tensors |= {} if d.W_skip is None else {"W_skip": d.W_skip[layer].T}
        write_safetensors(folder / WEIGHTS, tensors)
        settings = {
            "architecture": architecture,
            "d_in": d.d_model,
            "d_sae": d.n_features,
            **({} if d.reconstructs else {"d_out": d.d_model}),
            "dtype": str(d.dtype).removeprefix("torch."),
            "device": "cpu",
            **PLAIN,
            "metadata": {
                "model_name": d.info.get("model_id", ""),
                "n_layers": d.n_layers,
                "hook_name": hook,
                **({} if d.reconstructs else {"hook_name_out": f"blocks.{layer}.{d.info.get('output_hook', 'hook_mlp_out')}"}),
            },
        }
        with writing(folder / SETTINGS) as aside:
            aside.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
