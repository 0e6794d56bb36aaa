"""What a harvest finds, computed in the obvious slow way."""

import math

import numpy as np

from cltdb.harvest.hashing import hash64


def slow_window(text, sequence, position, window):
    document = text.documents[sequence]
    start = stop = position
    while start > 0 and document[start - 1] == document[position]:
        start -= 1
    while stop < len(document) and document[stop] == document[position]:
        stop += 1
    first = max(start, min(position - 3 * window // 4, stop - window))
    return first, min(window, stop - first), start


def slow_peaks(a, text, window):
    """[(activation, sequence, position)] of one feature's contexts; a [n_seqs, pos]."""
    chosen = []
    for value, sequence, position in sorted((-a[place], *place) for place in zip(*np.nonzero(a), strict=True)):
        document = text.documents[sequence]
        if not any(s == sequence and document[p] == document[position] and abs(p - position) < window / 2 for _, s, p in chosen):
            chosen.append((-value, sequence, position))
    return chosen


def slow_contexts(a, text, settings, seed, key):
    """{band: [(sequence, position), ...] by rank} of one feature; a [n_seqs, pos], key: its (layer, feature)."""
    context = text.tokens.shape[1]
    found = slow_peaks(a, text, settings.window)
    top = found[: settings.top]

    def luck(peak):
        return -int(hash64(seed, *key, peak[1] * context + peak[2]) >> np.uint64(32)), peak[1], peak[2]

    n_sample = settings.per_quantile * settings.n_quantiles
    rising = sorted([peak for peak in sorted(found, key=luck) if peak not in top][:n_sample])
    bands = {"top": top}
    for rank, peak in enumerate(rising):
        bands.setdefault(f"q{rank * settings.n_quantiles // len(rising)}", []).append(peak)
    falling = {band: sorted(peaks, key=lambda peak: (-peak[0], *peak[1:])) for band, peaks in bands.items() if peaks}
    return {band: [(int(s), int(p)) for _, s, p in peaks] for band, peaks in falling.items()}


def slow_bins(a):
    """{lower edge: number} of activations above 0."""
    octave, bins = math.floor(math.log2(a.max())), {}
    for value in a:
        low = 2.0 ** max(math.floor(math.log2(value)), octave - 7)
        low += low * max(0, math.floor(4 * (value / low - 1))) / 4
        bins[low] = bins.get(low, 0) + 1
    return dict(sorted(bins.items()))
