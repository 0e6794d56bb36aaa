"""Windows of text: which tokens stand around a peak, which peaks are contexts, and the random pool of windows.

A window has at most `window` tokens and never crosses documents. Three quarters of it stand before the peak, because a feature
can only have seen what came before. Positions are counted within a sequence, `flat` ones over all sequences of the array at hand.

A context is one occurrence of a feature. Position is a property of it, and so would be the step of a diffusion model; a feature has neither.
"""

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """sequence int64, start int32 (position of the first token), length int32, each [n]."""

    sequence: np.ndarray
    start: np.ndarray
    length: np.ndarray


def document_spans(documents):
    """documents [n_seqs, context] to (start, stop), int32 of the same shape: the part of the sequence that is the position's
    document."""
    n_seqs, context = documents.shape
    positions = np.arange(context, dtype=np.int32)
    begins = np.ones((n_seqs, context), dtype=bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    start = np.maximum.accumulate(np.where(begins, positions, 0), axis=1)
    ends = np.ones((n_seqs, context), dtype=bool)
    ends[:, :-1] = begins[:, 1:]
    stop = np.minimum.accumulate(np.where(ends, positions + 1, context)[:, ::-1], axis=1)[:, ::-1]
    return start.astype(np.int32), stop.astype(np.int32)


def window_around(position, *, start, stop, window):
    """(first position, length) of the window around each `position` of the documents [start, stop)."""
    first = np.maximum(np.minimum(position - 3 * window // 4, stop - window), start)
    return first.astype(np.int32), np.minimum(window, stop - first).astype(np.int32)


def peaks(feature, flat, activation, *, document_start, window):
    """Indices of the entries that are peaks, sorted by (feature, flat).

    feature, flat, activation: one entry per firing; document_start: the flat start of the entry's document, per entry. Documents
    are tiled by `window`; a peak is the largest activation of a feature in a tile (ties: the first), unless the peak of a
    neighbouring tile of the document is less than half a window away and larger (ties: the earlier one stays).
    """
    tile = (flat - document_start) // window
    order = np.lexsort((flat, -activation, tile, document_start, feature))
    keys = [column[order] for column in (feature, document_start, tile)]
    best = order[_run_starts(*keys)]
    near = (
        (feature[best][1:] == feature[best][:-1])
        & (document_start[best][1:] == document_start[best][:-1])
        & (flat[best][1:] - flat[best][:-1] < window // 2)
    )
    later_wins = activation[best][1:] > activation[best][:-1]
    keep = np.ones(len(best), dtype=bool)
    keep[:-1] &= ~(near & later_wins)
    keep[1:] &= ~(near & ~later_wins)
    return best[keep]


def _run_starts(*columns):
    """True where a row of the sorted columns differs from the row before."""
    starts = np.ones(len(columns[0]), dtype=bool)
    starts[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0) if len(starts) > 1 else starts[1:]
    return starts


def choose_pool(sequences, *, n_windows, window, seed):
    """`n_windows` different random windows of the text (fewer where it has fewer), in the order of the text.

    Each is the window around a uniformly drawn ordinary token, so that it is made as the windows around peaks are.
    """
    context, places = sequences.tokens.shape[1], np.flatnonzero(sequences.ordinary)
    drawn = np.random.default_rng(seed).choice(len(places), size=min(len(places), 4 * n_windows), replace=False)
    sequence, position = np.divmod(places[drawn], context)
    start, stop = document_spans(sequences.documents)
    first, length = window_around(position, start=start[sequence, position], stop=stop[sequence, position], window=window)
    _, chosen = np.unique(sequence * context + first, return_index=True)
    chosen = np.sort(chosen)[:n_windows]
    chosen = chosen[np.lexsort((first[chosen], sequence[chosen]))]
    return Windows(sequence[chosen].astype(np.int64), first[chosen], length[chosen])
