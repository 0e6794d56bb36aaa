"""cltdb: declarative experiments and a feature database for mechanistic interpretability.

    import cltdb
    db = cltdb.open("cltdb.duckdb")                     # Polars frames from the database
    lm = cltdb.load_model("toyworld")                   # a Hugging Face model with its hook points named
    dictionary = cltdb.load_dictionary("artifacts/train/<key>")
    graph = cltdb.attribute(lm, dictionary, "The capital of France is")

Names are loaded when they are first used, so that `import cltdb` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "open": "cltdb.database.api",
    "load_model": "cltdb.model.loading",
    "load_dictionary": "cltdb.model.transcoder",
    "Dictionary": "cltdb.model.transcoder",
    "logit_lens": "cltdb.harvest.lens",
    "attribute": "cltdb.attribution.graph",
    "intervene": "cltdb.attribution.intervene",
    "FeatureTarget": "cltdb.replacement.targets",
    "DirectionTarget": "cltdb.replacement.targets",
    "LabelTarget": "cltdb.replacement.targets",
    "Sampling": "cltdb.replacement.continuation",
    "CltdbError": "cltdb.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cltdb' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__():
    return __all__
