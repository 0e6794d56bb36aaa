"""Which peaks may become contexts: those of highest activation of their feature, and a uniform sample, those whose place has the largest
hash. Both orders are total (of equal ones the earlier place comes first), so the choice depends neither on batches nor on the order in
which the text is seen.

While text streams by, a peak is a candidate unless its feature has enough better ones. What is held in memory: per feature the best
priorities seen so far, and the candidates of the present stretch of text, with the activations in their windows. The stretch ends in a
file (`parts`); the contexts are chosen from the candidates of all files at the end, a range of features at a time.
"""

from typing import NamedTuple

import numpy as np

from cltdb.harvest.windows import by_feature, consecutive


class Peaks(NamedTuple):
    """feature int32, place int64 (sequence * context + position), activation float32, luck uint32 (hash of the place), all [n]; end int64
    [n]: of each one's last entry in `offset` uint16 (in its window) and `value` float32, where the feature is active."""

    feature: np.ndarray
    place: np.ndarray
    activation: np.ndarray
    luck: np.ndarray
    end: np.ndarray
    offset: np.ndarray
    value: np.ndarray

    @property
    def priorities(self):
        """What decides, uint32, of top contexts and of the sample: positive floats are ordered as their bits are."""
        return self.activation.view(np.uint32), self.luck

    def take(self, rows):
        """Those of these numbers."""
        length = np.diff(self.end, prepend=0)
        entries = consecutive((self.end - length)[rows], length[rows])
        columns = (column[rows] for column in self[:4])
        return Peaks(*columns, np.cumsum(length[rows]), self.offset[entries], self.value[entries])


def joined(parts):
    """One `Peaks` of several."""
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    before = np.cumsum([0, *(len(part.value) for part in parts[:-1])])
    columns[Peaks._fields.index("end")] = np.concatenate([part.end + n for part, n in zip(parts, before, strict=True)])
    return Peaks(*columns)


def rank_in(values):
    """How many equal values stand before each, in a sorted array."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1)) if len(values) else np.empty(0, dtype=np.int64)
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def ranks(feature, priority):
    """The rank of each row in its feature, the largest priority first, of equal ones the earlier row."""
    order = np.argsort((feature.astype(np.uint64) << np.uint64(32)) | (~priority).astype(np.uint64), kind="stable")
    rank = np.empty(len(feature), dtype=np.int64)
    rank[order] = rank_in(feature[order])
    return rank


class Candidates:
    """Of one layer's features. best: per kind of context the largest priorities seen, uint32 [n_features, n_kept], 0 where there are
    fewer; least: the smallest of these [n_features]; pending: the `Peaks` of the present stretch."""

    def __init__(self, n_features, *, top, sample):
        self.best = [np.zeros((n_features, n_kept), dtype=np.uint32) for n_kept in (top, sample)]
        self.least = [np.zeros(n_features, dtype=np.uint32) for _ in self.best]
        self.pending = []

    def may_enter(self, feature, priorities):
        """Mask of those that better ones of their feature do not rule out."""
        mask = np.zeros(len(feature), dtype=bool)
        for least, priority in zip(self.least, priorities, strict=True):
            mask |= priority >= least[feature]
        return mask

    def add(self, peaks):
        """`Peaks` at later places than those before, of the present stretch."""
        self.pending.append(peaks)

    @property
    def n_bytes(self):
        return sum(column.nbytes for peaks in self.pending for column in peaks)

    def take(self):
        """The candidates of the stretch by feature, then place, less those that others of it rule out; the next stretch begins."""
        peaks, self.pending = joined(self.pending), []
        stays = np.zeros(len(peaks.feature), dtype=bool)
        for best, least, priority in zip(self.best, self.least, peaks.priorities, strict=True):
            rank = ranks(peaks.feature, priority)
            first = np.flatnonzero(rank < best.shape[1])
            _keep_best(best, least, peaks.feature[first], rank[first], priority[first])
            stays[first] |= priority[first] >= least[peaks.feature[first]]
        rows = np.flatnonzero(stays)
        return peaks.take(rows[by_feature(peaks.feature[rows])])


def _keep_best(best, least, feature, rank, priority):
    """Puts new priorities, of ranks below n_kept in their feature, among the best ones."""
    features, row = np.unique(feature, return_inverse=True)
    n_kept = best.shape[1]
    both = np.zeros((len(features), 2 * n_kept), dtype=best.dtype)
    both[:, :n_kept] = best[features]
    both[row, n_kept + rank] = priority
    both.partition(n_kept, axis=1)
    best[features], least[features] = both[:, n_kept:], both[:, n_kept]


class Kept(NamedTuple):
    """How many contexts a feature has at most: of highest activation, and per quantile of the sample."""

    top: int
    n_quantiles: int
    per_quantile: int

    @classmethod
    def of(cls, settings):
        """Those of a section `Harvest`."""
        return cls(settings.top, settings.n_quantiles, settings.per_quantile)

    @property
    def sampled(self):
        return self.n_quantiles * self.per_quantile

    @property
    def sample(self):
        """Peaks of largest hash that suffice, whichever of them are top contexts."""
        return self.top + self.sampled


def choose(peaks, kept):
    """(rows, band, rank) of the contexts among `Peaks` by feature and place, in the order of the table. band -1: the top ones; 0 and up:
    equal shares of the sample, highest activation last."""
    activation, luck = peaks.priorities
    is_top = ranks(peaks.feature, activation) < kept.top
    rest = np.flatnonzero(~is_top)
    rest = rest[ranks(peaks.feature[rest], luck[rest]) < kept.sampled]
    feature = peaks.feature[rest]
    band = np.full(len(is_top), -1)
    band[rest] = ranks(feature, ~activation[rest]) * kept.n_quantiles // np.bincount(feature, minlength=1)[feature]
    rows = np.flatnonzero(is_top | (band >= 0))
    rows = rows[np.lexsort((peaks.place[rows], ~activation[rows], band[rows], peaks.feature[rows]))]
    return rows, band[rows], rank_in(peaks.feature[rows].astype(np.int64) * (kept.n_quantiles + 1) + band[rows] + 1)
