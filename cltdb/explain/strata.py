"""Drawing features evenly from strata: layers, tenths by density."""

import numpy as np
import polars as pl

from cltdb.harvest.hashing import hash64


def stratified(candidates, n, strata, seed):
    """n of the candidates, as evenly from each stratum as there are any: one of each in turn, in a random order that is fixed by the seed."""
    drawn = hash64(seed, candidates["layer"].to_numpy().astype(np.int64), candidates["feature"].to_numpy().astype(np.int64), 3)
    tenth = (pl.col("density").rank("ordinal") - 1) * 10 // pl.len()
    keys = [{"layer": pl.col("layer"), "density": tenth}[name].alias(f"stratum_{name}") for name in strata] or [
        pl.lit(0).alias("stratum_all")
    ]
    ranked = candidates.with_columns(*keys, drawn=pl.Series(drawn)).sort("drawn")
    turn = pl.int_range(pl.len()).over([key.meta.output_name() for key in keys])
    return ranked.with_columns(turn=turn).sort("turn", "drawn").head(n).select(candidates.columns)
