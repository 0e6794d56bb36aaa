"""Which unit of a baseline stands beside which feature."""

import numpy as np
import polars as pl
from scipy.optimize import linear_sum_assignment

from cltdb.explain.strata import stratified


def matched(features, units, n, *, seed):
    """(layer, feature, unit) of up to n of `features`, chosen by `stratified`, each with a live unit of a baseline: of the same layer, of
    nearly the same density, no unit twice. Where a layer has fewer units, some of its features stay alone and are left out.

    features, units: frames with layer, feature, density. The sum of |log density ratio| of all pairs of a layer is as small as possible.
    """
    pairs = []
    for (layer,), wanted in stratified(features, n, ["layer", "density"], seed).group_by("layer", maintain_order=True):
        there = units.filter(layer=layer)
        log_density = [np.log(frame["density"].to_numpy()) for frame in (wanted, there)]
        rows, columns = linear_sum_assignment(np.abs(log_density[0][:, None] - log_density[1]))
        pairs.append(wanted[rows].select("layer", "feature").with_columns(there["feature"][columns].alias("unit")))
    empty = features.select("layer", "feature", pl.col("feature").alias("unit")).clear()
    return pl.concat([empty, *pairs])
