"""Which features are compared with a baseline, and which unit of it stands beside which of them."""

import numpy as np
import polars as pl
from scipy.optimize import linear_sum_assignment

from cltdb.harvest.hashing import hash64

DECILES = 10


def stratified(features, n, *, seed):
    """Up to n of `features` (a frame with layer, feature, density): as many of each layer and density decile in it as possible."""
    rank = pl.struct("density", "feature").rank("ordinal").over("layer") - 1
    decile = (rank * DECILES // pl.len().over("layer")).alias("decile")
    luck = pl.Series("luck", hash64(seed, features["layer"].to_numpy(), features["feature"].to_numpy()))
    drawn = features.with_columns(decile, luck)
    turn = pl.col("luck").rank("ordinal").over("layer", "decile").alias("turn")
    return drawn.with_columns(turn).sort("turn", "luck").head(n).select(features.columns).sort("layer", "feature")


def matched(features, units, n, *, seed):
    """(layer, feature, unit) of up to n of `features`, chosen by `stratified`, each with a live unit of a baseline: of the same layer, of
    nearly the same density, no unit twice. Where a layer has fewer units, some of its features stay alone and are left out.

    features, units: frames with layer, feature, density. The sum of |log density ratio| of all pairs of a layer is as small as possible.
    """
    pairs = []
    for (layer,), wanted in stratified(features, n, seed=seed).group_by("layer", maintain_order=True):
        there = units.filter(layer=layer)
        log_density = [np.log(frame["density"].to_numpy()) for frame in (wanted, there)]
        rows, columns = linear_sum_assignment(np.abs(log_density[0][:, None] - log_density[1]))
        pairs.append(wanted[rows].select("layer", "feature").with_columns(there["feature"][columns].alias("unit")))
    empty = features.select("layer", "feature", pl.col("feature").alias("unit")).clear()
    return pl.concat([empty, *pairs])
