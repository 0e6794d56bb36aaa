"""Reproducible random choices that do not depend on the order in which things are seen: splitmix64 of a seed and integers."""

import numpy as np


def hash64(seed, *columns):
    """A uint64 per row of the integer columns (arrays or scalars, broadcast together)."""
    h = _mix(np.asarray(seed).astype(np.uint64))
    for column in columns:
        h = extended(h, column)
    return h


def extended(h, column):
    """The `hash64` of one integer column more: extended(hash64(seed, a), b) is hash64(seed, a, b)."""
    return _mix(h ^ np.asarray(column).astype(np.int64).astype(np.uint64))


def hash_uniform(seed, *columns):
    """A number in [0, 1) per row of the integer columns."""
    return (hash64(seed, *columns) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x):
    """Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), splitmix64's increment and
    finalizer."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
