"""Firings at tokens that were chosen before the pass: those of the pool's windows, and those over which co-activation is counted."""

from typing import NamedTuple

import numpy as np

from cltdb.harvest.windows import by_feature


class Firings(NamedTuple):
    """token int32 (index among the chosen ones), feature int32, activation float32, each [n]."""

    token: np.ndarray
    feature: np.ndarray
    activation: np.ndarray


class ChosenTokens:
    """places [n_chosen], rising: sequence * context + position of each. Holds their firings in the present stretch of text, per layer."""

    def __init__(self, places, layers):
        self.places, self.pending = places, {layer: [] for layer in layers}

    def index(self, first, stop):
        """Of each place from `first` to `stop` - 1 its index among the chosen ones, -1 where it is none."""
        low, high = np.searchsorted(self.places, [first, stop])
        index = np.full(stop - first, -1, dtype=np.int32)
        index[self.places[low:high] - first] = np.arange(low, high)
        return index

    def add(self, layer, index, firings):
        """`Firings` of a batch, by token, then feature; `index` is that of the batch's places."""
        token = index[firings.token]
        rows = np.flatnonzero(token >= 0)
        self.pending[layer].append(Firings(token[rows], firings.feature[rows].astype(np.int32), firings.activation[rows]))

    @property
    def n_bytes(self):
        return sum(column.nbytes for pending in self.pending.values() for firings in pending for column in firings)

    def take(self, layer):
        """The `Firings` of the stretch, by token, then feature; the next stretch begins."""
        firings = Firings(*map(np.concatenate, zip(*self.pending[layer], strict=True)))
        self.pending[layer] = []
        return firings

    def take_by_feature(self, layer):
        """The same by feature, then token."""
        firings = self.take(layer)
        order = by_feature(firings.feature)
        return Firings(*(column[order] for column in firings))
