"""Checks that a model has the weights of its files, and makes the fingerprint that identifies them.

transformers fills a tensor that a file lacks, or has in another size, with random numbers. It drops a tensor that the model has no place
for. Both it says in a log line only; here each is an error with the names. Tensors that the text model does not need from a file may be
missing or left over: tied weights, masks and rotary frequencies of old checkpoints, the towers of a multimodal model beside its text.
"""

import hashlib
import json
import re
from pathlib import Path

import torch

from cltdb.errors import CltdbError
from cltdb.model.architectures import family_of

SHOWN_NAMES = 6
SETTINGS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.json",
    "chat_template.jinja",
)
"""Files beside the weights that fix a model's function and its tokens."""


def weight_files(directory, where):
    """The safetensors files that transformers reads in a directory, each whole and with the tensors that an index promises."""
    directory = Path(directory)
    if (directory / "adapter_config.json").is_file():
        _refuse_adapter(where)
    index = directory / "model.safetensors.index.json"
    if (directory / "model.safetensors").is_file() or not index.is_file():
        files = [path for path in [directory / "model.safetensors"] if path.is_file()]
        for path in files:
            stored_types(path)
        return files
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {name: directory / file for name, file in places.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CltdbError(
            str(index), found=f"an index that cannot be read ({error})", expected="its weight_map", do="save the model again"
        ) from error
    files = sorted(set(names.values()))
    if not files:
        raise CltdbError(str(index), found="no tensor", expected="the shard of every tensor", do="save the model again")
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise CltdbError(where, found=f"no file {_listed(absent)}", expected="every shard that the index names", do="add it")
    held = {path: set(stored_types(path)) for path in files}
    lacking = [f"{name} in {path.name}" for name, path in names.items() if name not in held[path]]
    if lacking:
        raise CltdbError(where, found=f"no {_listed(lacking)}", expected="what the index names", do="save the model again")
    every = sorted(name for tensors in held.values() for name in tensors)
    twice = sorted({name for name, following in zip(every, every[1:], strict=False) if name == following})
    if twice:
        raise CltdbError(where, found=f"{_listed(twice)} in two shards", expected="each tensor once", do="save the model again")
    return files


def _refuse_adapter(where):
    raise CltdbError(
        where,
        found="adapter_config.json: an adapter (PEFT), which changes the weights beside it",
        expected="the weights of the whole model",
        do="merge the adapter into its model and save that, or remove the file where it is merged already",
    )


def stored_types(path):
    """{tensor: its dtype as safetensors names it} of a file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise CltdbError(
            str(path), found=f"a damaged file ({error})", expected="a whole safetensors file", do="download or save it again"
        ) from error


def refuse_unlike(hf, info, files, where):
    """Raises CltdbError where the model is not what its files hold. info: transformers' loading info; files: its weights."""
    if getattr(hf, "_hf_peft_config_loaded", False):  # then the info is the adapter's
        _refuse_adapter(where)
    beside, made_anew = _beside_the_text(hf), _made_anew(family_of(hf.config))
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(beside))
    unexpected = sorted(name for name in info["unexpected_keys"] if not name.startswith(beside) and not made_anew.search(name))
    sizes = sorted(
        f"{name} ({_size(in_file)}, of the config {_size(wanted)})"
        for name, in_file, wanted in info["mismatched_keys"]
        if not name.startswith(beside)
    )
    problems = [("no", missing), ("no place for", unexpected), ("other sizes of", sizes)]
    found = [f"{word} {_listed(names)}" for word, names in problems if names]
    if found:
        raise CltdbError(
            where,
            found=" and ".join(found) + _depths(hf, files),
            expected="the tensors that its config.json describes, all of them and no others",
            do="mend config.json, or save the weights again: what a file lacks would be random numbers",
        )
    _refuse_integers(hf, files, where)
    _refuse_other_frequencies(hf, files, where)


def _beside_the_text(hf):
    """How the names of tensors begin that no text passes through, for `startswith`."""
    text_model = family_of(hf.config).text_model
    others = [name for name, _ in hf.base_model.named_children() if name != text_model] if text_model else []
    return tuple(f"{start}{name}." for name in others for start in ("", f"{hf.base_model_prefix}."))


def _made_anew(family):
    """Finds the names of buffers that older versions of transformers saved and newer ones make: masks, positions, rotary frequencies."""
    frequencies = f"|{_frequencies(family).pattern}" if family.rotary else ""
    return re.compile(rf"(^|\.){family.attention}\.(bias|masked_bias)$|(^|\.)position_ids$" + frequencies)


def _frequencies(family):
    """Finds the names of rotary frequencies."""
    return re.compile(rf"(^|\.){family.rotary}\.inv_freq$")


def _listed(names):
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _size(shape):
    return "x".join(map(str, shape))


def _depths(hf, files):
    """The numbers of layers in the files and in the config, for a message; empty where they are the same."""
    blocks, beside = re.compile(rf"(?:^|\.){family_of(hf.config).blocks}\.(\d+)\."), _beside_the_text(hf)
    names = [name for path in files for name in stored_types(path) if not name.startswith(beside)]
    numbers = [int(match[1]) for match in map(blocks.search, names) if match]
    described = hf.config.get_text_config().num_hidden_layers
    found = 1 + max(numbers, default=-1)
    return "" if found in (0, described) else f" ({found} layers in the file, {described} in config.json)"


def _refuse_integers(hf, files, where):
    """Refuses integer weights where the config describes no quantisation: without its scales they mean nothing."""
    if getattr(hf.config, "quantization_config", None) is not None:
        return
    names = {name for name, parameter in hf.named_parameters()}
    start = f"{hf.base_model_prefix}."
    names |= {name.removeprefix(start) for name in names}
    whole = [
        f"{name} ({dtype})"
        for path in files
        for name, dtype in stored_types(path).items()
        if name in names and not dtype.startswith(("F", "BF"))
    ]
    if whole:
        raise CltdbError(
            where,
            found=f"whole numbers in {_listed(sorted(whole))}",
            expected="floating-point weights",
            do="dequantise the model",
        )


def _refuse_other_frequencies(hf, files, where):
    """Refuses rotary frequencies in a file that are not those of the config: transformers ignores the file's and computes them."""
    family = family_of(hf.config)
    if not family.rotary:
        return
    frequencies = _frequencies(family)
    computed = {tuple(buffer.shape): buffer for name, buffer in hf.named_buffers() if frequencies.search(name)}
    scaling = getattr(hf.config.get_text_config(), "rope_parameters", None) or {}
    if len(computed) != 1 or scaling.get("rope_type", "default") != "default":
        return
    [expected] = computed.values()
    from safetensors import safe_open

    for path in files:
        for name in filter(frequencies.search, stored_types(path)):
            with safe_open(path, framework="pt") as file:
                stored = file.get_tensor(name).float()
            if stored.shape != expected.shape or not torch.allclose(stored, expected.cpu().float(), rtol=0.02, atol=1e-6):
                raise CltdbError(
                    where,
                    found=f"rotary frequencies in {name} that are not those of config.json",
                    expected="the same ones",
                    do="mend rope_theta or head_dim in config.json",
                )


def fingerprint(hf, directory, where):
    """16 hexadecimal digits of the text model's parameters as loaded, its config and its tokenizer. CltdbError where a weight is no
    finite number."""
    import xxhash

    content, beside, not_finite = xxhash.xxh3_128(), _beside_the_text(hf), []
    for name, parameter in sorted(hf.named_parameters()):
        if name.startswith(beside):
            continue
        values = parameter.detach().contiguous().reshape(-1)
        total = values.sum(dtype=torch.promote_types(values.dtype, torch.float32))  # 20 times as fast as asking each number
        if not bool(total.isfinite()) and not bool(values.isfinite().all()):
            not_finite.append(name)
        content.update(f"{name}\0{parameter.dtype}\0{tuple(parameter.shape)}\0".encode())
        content.update(values.view(torch.uint8).numpy())
    if not_finite:
        dtype = str(next(hf.parameters()).dtype).removeprefix("torch.")
        raise CltdbError(
            where,
            found=f"weights that are no finite numbers as {dtype}: {_listed(not_finite)}",
            expected="finite weights",
            do="mend the file"
            + (", or choose dtype bfloat16 or float32, which hold larger numbers" if dtype == "float16" else ""),
        )
    digest = hashlib.sha256(content.digest())
    for name in SETTINGS:
        if (Path(directory) / name).is_file():
            digest.update(f"{name}\0".encode() + hashlib.sha256((Path(directory) / name).read_bytes()).digest())
    return digest.hexdigest()[:16]
