"""Dictionaries in the formats of other tools: read into and written from a `Dictionary`."""

from cltdb.errors import CltdbError
from cltdb.interchange import circuit_tracer, clt_forge, native, saelens

FORMATS = {"circuit-tracer": circuit_tracer, "clt-forge": clt_forge, "saelens": saelens, "cltdb": native}


def load_published(format, path):
    """The `Dictionary` in directory `path`, in one of FORMATS. No file of it can run code."""
    return _module(format).load(path)


def save_published(dictionary, format, path):
    """Writes a dictionary into directory `path` as another tool reads it."""
    _module(format).save(dictionary, path)


def _module(format):
    if format not in FORMATS:
        raise CltdbError("format", found=repr(format), expected=", ".join(FORMATS), do="name one of them")
    return FORMATS[format]
