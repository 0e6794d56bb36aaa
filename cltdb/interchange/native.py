"""cltdb's own format (model/transcoder.py)."""

from cltdb.model.transcoder import load_dictionary

__all__ = ["parts", "save"]


def parts(directory):
    return load_dictionary(directory).parts()


def save(dictionary, directory):
    dictionary.save(directory)
