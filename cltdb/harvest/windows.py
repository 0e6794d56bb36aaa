"""Windows of text: which tokens stand around a peak, which firings are peaks, and the random pool of windows.

A window has at most `window` tokens and never leaves its document or its sequence. Three quarters of it stand before the peak, because a
feature can only have seen what came before.

The peaks of a feature are chosen in a plain greedy way: its firings by falling activation, of equal ones the earlier first; each is a
peak unless a chosen peak of the same document stands less than half a window away. The parts of a document in two sequences count as two
documents here: no window holds tokens of both. So no peak depends on another sequence. A window may hold a higher activation than its
peak's, of a peak at least half a window away, which has a window of its own.

A context is one occurrence of a feature. Position is a property of it, and so would be the step of a diffusion model; a feature has neither.
"""

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """sequence int64, start int32 (position of the first token), length int32, each [n]."""

    sequence: np.ndarray
    start: np.ndarray
    length: np.ndarray


def consecutive(begin, length):
    """begin[i], …, begin[i] + length[i] - 1 for each i, one after the other."""
    return np.arange(length.sum()) + np.repeat(begin - (np.cumsum(length) - length), length)


def by_feature(feature):
    """The order of rows by feature, equal ones as they are. numpy sorts numbers of 16 bits in linear time."""
    return np.argsort(feature.astype(np.uint16) if feature.max(initial=0) < 2**16 else feature, kind="stable")


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


def peaks(place, activation, *, window):
    """Mask of the firings that are peaks. place [n], rising: firings of other features or documents are at least half a window away."""
    first, pairs, step = np.arange(len(place)), [], 1
    while len(first):  # collects all pairs of firings less than half a window apart
        first = first[: np.searchsorted(first, len(place) - step)]
        first = first[2 * (place[first + step] - place[first]) < window]
        pairs.append(np.stack([first, first + step]))
        step += 1
    earlier, later = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), dtype=np.int64)
    later_wins = activation[later] > activation[earlier]
    winner, loser = np.where(later_wins, later, earlier), np.where(later_wins, earlier, later)
    is_peak = np.ones(len(place), dtype=bool)
    while len(winner):  # who loses to nobody that is left is a peak, and all that lose to it are out
        beaten = np.zeros(len(place), dtype=bool)
        beaten[loser] = True
        out = loser[~beaten[winner]]
        is_peak[out] = False
        left = is_peak[winner] & is_peak[loser]
        winner, loser = winner[left], loser[left]
    return is_peak


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
