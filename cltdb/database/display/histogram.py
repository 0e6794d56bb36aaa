"""The bins of a feature's activation histogram, as table `features` holds it."""

import math

import numpy as np

BINS_PER_OCTAVE_BITS = 21
"""A bin is named by a float32 without its last 21 bits: its exponent and two bits of its fraction."""
UNKNOWN, SILENT = "an earlier cltdb harvested: no histogram", "never active in the harvest"


def steps(histogram):
    """(edges [n + 1], tokens [n]) from the lowest bin to the highest, with the empty ones between; of [{low, n}]."""
    found = {int(np.float32(one["low"]).view(np.int32)) >> BINS_PER_OCTAVE_BITS: one["n"] for one in histogram or []}
    if not found:
        return [], []
    names = np.arange(min(found), max(found) + 2, dtype=np.int32)
    edges = (names << BINS_PER_OCTAVE_BITS).view(np.float32)
    return [float(edge) for edge in edges], [found.get(int(name), 0) for name in names[:-1]]


def place(edges, value):
    """Where an activation lies on the axis of a histogram, 0 to 1: all bins are equally wide."""
    for i, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        if value < high:
            return (i + max(0.0, value - low) / (high - low)) / (len(edges) - 1)
    return 1.0


def missing(card):
    """Why a feature (a row of feature_card) has no bars; None where it has some."""
    if card["histogram"]:
        return None
    return SILENT if card["dead"] else UNKNOWN


def ticks(low, high):
    """Powers of two, some six at most, from `low` to `high`; these two where there is none between them."""
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    if first > last:
        return [low, high]
    return [2.0**power for power in range(first, last + 1, max(1, -(-(last - first) // 5)))]
