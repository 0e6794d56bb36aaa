"""What a baseline dictionary has to share with the trained one, and what its module gives back."""

from typing import NamedTuple

import numpy as np
import polars as pl

from cltdb.model.transcoder import Dictionary


class Wanted(NamedTuple):
    """n_features: of each layer of the trained dictionary; l0 {layer: active features per ordinary token}; n_units: how many features of
    each layer are wanted at most.

    l0 has two significant digits, so that the dictionaries of a sweep share their baselines.
    """

    n_features: int
    l0: dict
    n_units: int
    reads: str | None = None
    """What an SAE reads and reconstructs, one of `kinds.READS`; None of a transcoder."""

    @classmethod
    def of(cls, features, n_units, reads=None):
        """That of table features of a harvest."""
        by_layer = features.group_by("layer").agg(pl.len(), pl.col("density").sum()).sort("layer")
        l0 = {layer: float(f"{density:.2g}") for layer, density in by_layer.select("layer", "density").iter_rows()}
        return cls(by_layer["len"].max(), l0, n_units, reads)


class Made(NamedTuple):
    """dictionary: with some of the units of each layer as features; units int64 [n_layers, n_features]: which ones."""

    dictionary: Dictionary
    units: np.ndarray
