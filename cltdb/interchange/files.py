"""Reading what other tools wrote: tensors by name with their shapes checked, JSON and YAML; nothing that runs code.

A setting or tensor that a reader does not know may change what a dictionary computes: `check_settings` and `check_tensors` refuse it
by name. Stated sizes are compared with those of the tensors (`check_sizes`).
"""

import json
import re
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch

from cltdb.engine.yaml_text import read_file
from cltdb.errors import CltdbError
from cltdb.tensor_files import Pieces, mapped_tensors, pieces, whole

TENSORS = "tensors of the format"


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
        if Path(path).suffix == ".json":
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
        else:
            settings = read_file(Path(path), bare_words=True).values
    except (OSError, ValueError) as error:
        raise CltdbError(str(path), found=str(error), expected="a file of settings", do="download or restore the file") from error
    if not isinstance(settings, dict):
        raise CltdbError(str(path), found=type(settings).__name__, expected="keys and values", do="restore the file")
    return settings


def check_settings(settings, path, *, read, neutral=(), fixed=None):
    """Refuses by name a setting that may change what a dictionary computes. Accepted are those in `read`, which the reader follows, those in
    `neutral`, which change nothing, and those in `fixed` {name: the values it may have}. None counts as not set."""
    fixed = fixed or {}
    for name, value in settings.items():
        if value is None or name in read or name in neutral:
            continue
        if name in fixed and any(value is plain or (type(value) is type(plain) and value == plain) for plain in fixed[name]):
            continue
        raise CltdbError(
            str(path),
            found=f"{name} {value!r}"
            + ("" if name in fixed else ", a setting that is not known and may change what the features do"),
            expected=" or ".join(map(repr, fixed[name])) if name in fixed else f"none but {', '.join([*read, *fixed])}",
            do="choose another dictionary" + ("" if name in fixed else f", or take {name} out of the file if it changes nothing"),
        )


def check_sizes(settings, path, sizes):
    """Refuses stated sizes that are not those of the tensors. sizes: {name of a setting: size found}."""
    for name, size in sizes.items():
        stated = settings.get(name)
        if stated is not None and (type(stated) is not int or stated != size):
            raise CltdbError(
                str(path),
                found=f"{name} {stated!r}, where the tensors have {size}",
                expected="tensors of the size that is stated",
                do="download or restore the missing files",
            )


def check_tensors(tensors, path, known):
    """Refuses by name a tensor that is not among `known`."""
    for name in tensors:
        if name not in known:
            raise CltdbError(
                str(path),
                found=f"the tensor {name}, which is not known and may change what the features do",
                expected=f"none but {', '.join(known)}",
                do="choose another dictionary, or name the format that the file is in",
            )


def stated_k(value, n_features, path):
    """The k of top-k that a file states; refused where it is not a number of features."""
    if type(value) is not int or not 1 <= value <= n_features:
        raise CltdbError(
            f"{path} k",
            found="none" if value is None else repr(value),
            expected=f"with activation topk a whole number from 1 to the {n_features} features",
            do="add the k that the dictionary was trained with",
        )
    return value


def refuse_top_k(dictionary, format):
    """Refuses to write a dictionary whose activation is topk in a format that cannot say so."""
    if dictionary.activation == "topk":
        raise CltdbError(
            f"export to {format}",
            found=f"activation topk (k {dictionary.k})",
            expected="relu or a threshold, as its reader takes nothing else",
            do="export in the format cltdb, or a plt in the format circuit-tracer; train with batchtopk for a threshold",
        )


def refuse_sae(dictionary, format):
    """CltdbError for a sparse autoencoder, which a format of transcoders has no place for."""
    if dictionary.reconstructs:
        raise CltdbError(
            f"export to {format}", found="an sae", expected="a clt or plt", do="export in the format saelens or cltdb"
        )


def numbered(directory, pattern):
    """{number: path} of the files or folders whose name matches a regular expression with one group, a number."""
    found = ((re.fullmatch(pattern, path.name), path) for path in Path(directory).iterdir())
    return {int(match[1]): path for match, path in found if match}


def without_gaps(numbers, directory, expected):
    """Refuses layer numbers that are not 0, 1, 2, …"""
    if not numbers or sorted(numbers) != list(range(len(numbers))):
        what = f"layers {', '.join(map(str, sorted(numbers)))}" if numbers else "none of its files"
        raise CltdbError(str(directory), found=what, expected=expected, do="download the missing files, or name another format")


def refuse_chosen_layers(dictionary, format):
    """Refuses to write a dictionary of some layers in a format that cannot say which. The features of the other layers never fire: a reader
    would replace these MLPs by a constant."""
    if len(dictionary.layers) < dictionary.n_layers:
        raise CltdbError(
            f"export to {format}",
            found=f"a dictionary of layers {', '.join(map(str, dictionary.layers))} of {dictionary.n_layers}",
            expected="one of every layer, because its files cannot say that the other MLPs stay as they are",
            do="export in the format cltdb, or a plt in the format saelens",
        )
