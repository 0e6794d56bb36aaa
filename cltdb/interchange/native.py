"""cltdb's own format (model/transcoder.py)."""

from cltdb.model.transcoder import load_dictionary as load

__all__ = ["load", "save"]


def save(dictionary, directory):
    dictionary.save(directory)
