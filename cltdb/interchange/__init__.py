"""What other tools read and write: dictionaries (a module per format), attribution graphs and feature pages as JSON.

graph_json.py writes graphs, graph_file.py and graph_import.py read them, feature_json.py writes features. Importing this package costs
nothing: the modules of dictionary formats need torch and are imported where one is used.
"""

import re
from importlib import import_module
from pathlib import Path

from cltdb.errors import CltdbError

HUB = "hf://"
FORMATS = {"circuit-tracer": "circuit_tracer", "clt-forge": "clt_forge", "saelens": "saelens", "cltdb": "native"}
"""The formats of dictionaries, with the module of each."""


def load_published(format, path):
    """The `Dictionary` in directory `path`, in one of FORMATS. No file of it can run code."""
    return _module(format).load(path)


def save_published(dictionary, format, path):
    """Writes a dictionary into directory `path` as another tool reads it."""
    _module(format).save(dictionary, path)


def _module(format):
    if format not in FORMATS:
        raise CltdbError("format", found=repr(format), expected=", ".join(FORMATS), do="name one of them")
    return import_module(f"cltdb.interchange.{FORMATS[format]}")


def local_copy(path, *, root, where="train.from.path"):
    """The directory that a path stands for: relative to `root`, or of the Hub, `hf://owner/name[@revision][/folder]`, downloaded."""
    if not path.startswith(HUB):
        directory = Path(root) / path
        if not directory.is_dir():
            raise CltdbError(where, found=f"no folder {directory}", expected="that of a dictionary", do="mend the path")
        return directory
    match = re.fullmatch(r"([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", path.removeprefix(HUB))
    if not match:
        raise CltdbError(where, found=path, expected="hf://owner/name, hf://owner/name@revision/folder", do="mend it")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, revision, folder = match.groups()
    wanted = [f"{folder}/{name}" if folder else name for name in ("*.safetensors", "*.json", "*.yaml")]
    try:
        copy = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CltdbError(
            where,
            found=f"{path}, which cannot be downloaded ({str(error).splitlines()[0]})",
            expected="a repository on the Hub",
            do="check its name and revision; the Hub needs network, a gated one HF_TOKEN",
        ) from error
    return copy / folder if folder else copy
