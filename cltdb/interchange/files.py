"""Reading what other tools wrote: tensors by name with their shapes checked, JSON and YAML; nothing that runs code."""

import json
import re
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
import yaml

from cltdb.errors import CltdbError
from cltdb.model.norms import norm_gain
from cltdb.model.parts import DictionaryParts
from cltdb.model.transcoder import check_fits, reads_before_gain
from cltdb.tensor_files import Pieces, mapped_tensors, pieces, scaled, whole

TENSORS = "tensors of the format"
INPUT_HOOKS = {
    "normed": ("ln2.hook_normalized", "mlp.hook_in"),  # `LanguageModel.input_hook` says where they differ
    "residual": ("hook_resid_mid", "hook_resid_pre", "hook_mlp_in"),  # all before the norm
}
OUTPUT_HOOKS = ("hook_mlp_out", "mlp.hook_out")  # after and before a norm of the MLP's output, where there is one


def read_tensors(path):
    """{name: tensor} of a safetensors file, mapped into memory."""
    from safetensors import SafetensorError

    try:
        return mapped_tensors(path)
    except (OSError, SafetensorError) as error:
        raise CltdbError(str(path), found=str(error), expected="a safetensors file", do="download or restore the file") from error


def read_arrays(path):
    """{name: `Pieces`} of an npz file, each array read whole when it is used, and then let go."""
    import numpy as np

    def read(name):
        with np.load(path, allow_pickle=False) as archive:
            return torch.from_numpy(archive[name])

    arrays = {}
    try:
        with ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    major, _ = np.lib.format.read_magic(file)
                    header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                    shape, _, dtype = header(file)
                name, dtype = member.removesuffix(".npy"), torch.from_numpy(np.empty(0, dtype=dtype)).dtype
                arrays[name] = Pieces(shape, dtype, lambda name=name: [read(name)])
    except (OSError, BadZipFile, ValueError, TypeError) as error:  # TypeError: an array of something else than numbers
        raise CltdbError(str(path), found=str(error), expected="an npz file", do="download or restore the file") from error
    return arrays


def transposed(value):
    """A matrix, tensor or `Pieces`, with its axes exchanged."""
    if not isinstance(value, Pieces):
        return value.T
    return Pieces(value.shape[::-1], value.dtype, lambda: pieces(whole(value).T))


def tensor(tensors, name, path, *, shape=None, optional=False):
    """The tensor `name` of a file, whose shape must be `shape`: sizes, None for any; None where it is optional and not there."""
    if name not in tensors:
        if optional:
            return None
        raise CltdbError(str(path), found=f"no tensor {name}", expected=TENSORS, do="name the format that the file is in")
    found = list(tensors[name].shape)
    if shape and (len(found) != len(shape) or any(want not in (None, size) for size, want in zip(found, shape, strict=True))):
        expected = str(["any" if size is None else size for size in shape]).replace("'", "")
        raise CltdbError(f"{path} {name}", found=f"shape {found}", expected=expected, do="name the format that the file is in")
    return tensors[name]


def read_settings(path):
    """The JSON or YAML object in a file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        settings = json.loads(text) if Path(path).suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CltdbError(str(path), found=str(error), expected="a file of settings", do="download or restore the file") from error
    if not isinstance(settings, dict):
        raise CltdbError(str(path), found=type(settings).__name__, expected="keys and values", do="restore the file")
    return settings


def numbered(directory, pattern):
    """{number: path} of the files or folders whose name matches a regular expression with one group, a number."""
    found = ((re.fullmatch(pattern, path.name), path) for path in Path(directory).iterdir())
    return {int(match[1]): path for match, path in found if match}


def without_gaps(numbers, directory, expected):
    """Refuses layer numbers that are not 0, 1, 2, …"""
    if not numbers or sorted(numbers) != list(range(len(numbers))):
        what = f"layers {', '.join(map(str, sorted(numbers)))}" if numbers else "none of its files"
        raise CltdbError(str(directory), found=what, expected=expected, do="download the missing files, or name another format")


def input_of(hook, path=None):
    """What a hook point of TransformerLens reads: {mlp_input, input_hook}, nothing where nothing is said."""
    if not hook:
        return {}
    for mlp_input, names in INPUT_HOOKS.items():
        for name in names:
            if hook == name or hook.endswith("." + name):
                return {"mlp_input": mlp_input, "input_hook": name}
    raise CltdbError(
        str(path),
        found=f"features that read {hook}",
        expected="one of " + ", ".join(name for names in INPUT_HOOKS.values() for name in names),
        do="choose a dictionary that reads the MLP's input",
    )


def output_of(hook, path):
    """{output_hook} of a dictionary that writes what a hook point of TransformerLens holds, nothing where nothing is said."""
    if not hook:
        return {}
    for name in OUTPUT_HOOKS:
        if hook == name or hook.endswith("." + name):
            return {"output_hook": name}
    raise CltdbError(
        str(path),
        found=f"features that write {hook}",
        expected=" or ".join(OUTPUT_HOOKS),
        do="choose a dictionary that writes the MLP's output",
    )


def hook_of(dictionary):
    """The hook point of TransformerLens that a dictionary reads."""
    info = dictionary.info
    return info.get("input_hook") or ("hook_resid_mid" if info.get("mlp_input") == "residual" else "mlp.hook_in")


def fitted(parts, lm):
    """The `DictionaryParts` as a model needs them, with gains folded in; refused where they are of another model."""
    parts = fold_gain(parts, lm)
    check_fits(parts, lm)
    return parts


def fold_gain(parts, lm):
    """The `DictionaryParts` that read what the MLPs of `lm` read, where `parts` read its RMSNorms before their gains:
    <w, x> = <w / gain, gain * x>, and so the skip connection. Others are as they were."""
    if (parts.n_layers, parts.d_model) != (lm.n_layers, lm.d_model) or not reads_before_gain(parts.info, lm):
        return parts
    layers = []
    for number, (layer, block) in enumerate(zip(parts.layers, lm.blocks, strict=True)):
        gain = norm_gain(block.mlp_norm).detach().float().cpu()
        if bool((gain == 0).any()):
            raise CltdbError(
                f"dictionary, layer {number}",
                found=f"features that read what the RMSNorm of {lm.model_id} has before a gain of 0",
                expected="gains other than 0, so that the MLP's input tells what came before",
                do="choose a dictionary that reads mlp.hook_in",
            )
        W_skip = None if layer["W_skip"] is None else whole(layer["W_skip"]) / gain[:, None]
        layers.append(layer | {"W_enc": scaled([layer["W_enc"]], 1 / gain), "W_skip": W_skip})
    info = parts.info | {"input_hook": lm.input_hook, "gain_folded": True}
    return DictionaryParts(kind=parts.kind, activation=parts.activation, layers=layers, info=info)


def refuse_chosen_layers(dictionary, format):
    """Refuses to write a dictionary of some layers alone where nothing says which: as features that never fire, the others would put a
    constant in the place of their MLPs."""
    if len(dictionary.layers) < dictionary.n_layers:
        raise CltdbError(
            f"export to {format}",
            found=f"a dictionary of layers {', '.join(map(str, dictionary.layers))} of {dictionary.n_layers}",
            expected="one of every layer, because its files cannot say that the other MLPs stay as they are",
            do="export in the format cltdb, or a plt in the format saelens",
        )


def info_of(model_id, hooks, source):
    """Provenance of an imported dictionary. hooks: of `input_of` and `output_of`."""
    return ({"model_id": model_id} if model_id else {}) | hooks | {"imported": source}
