"""What other tools read and write: dictionaries (a module per format), attribution graphs and feature pages as JSON.

A dictionary format is a module with `parts(directory)`, its `DictionaryParts`, and `save(dictionary, directory)`. Both go through tensors
piece by piece, so that neither holds more than about one layer's encoder, whatever the size of the dictionary. hook_points.py says what
a dictionary reads and writes and fits it to its model. graph_json.py writes graphs, graph_file.py and graph_import.py read them,
feature_json.py writes features. Importing this package costs nothing: the modules of dictionary formats need torch and are imported
where one is used.
"""

from importlib import import_module

from cltdb.errors import CltdbError
from cltdb.interchange.hub import HUB, local_copy

__all__ = ["FORMATS", "HUB", "files_of", "load_published", "local_copy", "published_parts", "save_published"]

FORMATS = {"circuit-tracer": "circuit_tracer", "clt-forge": "clt_forge", "saelens": "saelens", "cltdb": "native"}
"""The formats of dictionaries, with the module of each."""


def published_parts(format, path):
    """The `DictionaryParts` in directory `path`, in one of FORMATS; its `save` makes a native dictionary. No file of it can run code."""
    return _module(format).parts(path)


def load_published(format, path):
    """The `Dictionary` in directory `path`, in one of FORMATS, for one that fits into memory."""
    from cltdb.model.transcoder import Dictionary

    return Dictionary.from_parts(published_parts(format, path))


def save_published(dictionary, format, path, **options):
    """Writes a dictionary into directory `path` as another tool reads it. options: those of the format's `save`."""
    _module(format).save(dictionary, path, **options)


def files_of(directory):
    """The local files that make up a published dictionary: those in its directory and those that its settings name."""
    return {*(path for path in directory.rglob("*") if path.is_file()), *_listed_files(directory)}


def _listed_files(directory):
    """The local files that a circuit-tracer set's `config.yaml` lists; whatever else is wrong with it, its reader says."""
    from cltdb.engine.yaml_text import read_file

    path = directory / "config.yaml"
    try:
        settings = read_file(path, bare_words=True).values if path.is_file() else {}
    except (CltdbError, OSError, ValueError):
        return []
    listed = settings.get("transcoders") if isinstance(settings, dict) else None
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [directory / name for name in names if not name.startswith(HUB) and (directory / name).is_file()]


def _module(format):
    if format not in FORMATS:
        raise CltdbError("format", found=repr(format), expected=", ".join(FORMATS), do="name one of them")
    return import_module(f"cltdb.interchange.{FORMATS[format]}")
