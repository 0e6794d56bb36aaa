"""The `capacity` contexts of highest priority per feature, kept while text streams by; memory does not grow with the text.

Priority is the activation (top contexts) or a hash of the place (a uniform sample). The order is total, larger priority first and
then the earlier place, so the result depends neither on batches nor on the order in which the text was seen.
"""

import numpy as np


class BestContexts:
    """priority float64, place int64 (flat position of the peak, -1: free), start and length int32, peak float32 (activation
    there), all [n_features, capacity]; activations float32 [n_features, capacity, window], the feature over the window, zero
    after its end."""

    FIELDS = ("priority", "place", "start", "length", "peak", "activations")

    def __init__(self, n_features, *, capacity, window):
        self.capacity = capacity
        self.priority = np.full((n_features, capacity), -np.inf)
        self.place = np.full((n_features, capacity), -1, dtype=np.int64)
        self.start = np.zeros((n_features, capacity), dtype=np.int32)
        self.length = np.zeros((n_features, capacity), dtype=np.int32)
        self.peak = np.zeros((n_features, capacity), dtype=np.float32)
        self.activations = np.zeros((n_features, capacity, window), dtype=np.float32)

    def would_enter(self, feature, priority, place):
        """True for candidates that beat the worst kept one of their feature."""
        worst = self.priority.min(axis=1)[feature]
        enters, equal = priority > worst, priority == worst
        rows = feature[equal]
        last_place = np.where(self.priority[rows] == worst[equal, None], self.place[rows], -1).max(axis=1)
        enters[equal] = place[equal] < last_place
        return enters

    def add(self, feature, priority, *, place, start, length, peak, activations):
        """Candidates sorted by feature, of other places than those added before; activations [n, window]."""
        features, row, counts = np.unique(feature, return_inverse=True, return_counts=True)
        if not len(features):
            return
        column = np.arange(len(feature)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = (len(features), counts.max())
        new_priority, new_place, source = (
            np.full(shape, -np.inf),
            np.full(shape, np.iinfo(np.int64).max),
            np.zeros(shape, dtype=np.int64),
        )
        new_priority[row, column], new_place[row, column], source[row, column] = priority, place, np.arange(len(feature))
        order = np.lexsort(
            (
                np.concatenate([self.place[features], new_place], axis=1),
                -np.concatenate([self.priority[features], new_priority], axis=1),
            ),
            axis=-1,
        )
        stays = np.zeros(order.shape, dtype=bool)
        np.put_along_axis(stays, order[:, : self.capacity], True, axis=1)
        stays[:, self.capacity :] &= new_priority > -np.inf
        entering, (winner_row, winner_column) = stays[:, self.capacity :], np.nonzero(stays[:, self.capacity :])
        free = _first_true(~stays[:, : self.capacity], entering.sum(axis=1))
        slot_row, slot = np.nonzero(free)
        assert np.array_equal(slot_row, winner_row)
        winner, target = source[winner_row, winner_column], (features[slot_row], slot)
        self.priority[target], self.place[target] = priority[winner], place[winner]
        self.start[target], self.length[target] = start[winner], length[winner]
        self.peak[target], self.activations[target] = peak[winner], activations[winner]

    def absorb(self, priority, place, start, length, peak, activations):
        """Those kept of other text."""
        kept = np.nonzero(place >= 0)
        self.add(
            kept[0],
            priority[kept],
            place=place[kept],
            start=start[kept],
            length=length[kept],
            peak=peak[kept],
            activations=activations[kept],
        )

    def ranked(self):
        """(feature, slot) of all kept contexts by feature, then from the first in order to the last."""
        feature, slot = np.nonzero(self.place >= 0)
        order = np.lexsort((self.place[feature, slot], -self.priority[feature, slot], feature))
        return feature[order], slot[order]


def _first_true(mask, counts):
    """`mask` with only the first counts[row] True values of each row."""
    return mask & (np.cumsum(mask, axis=1) <= counts[:, None])
