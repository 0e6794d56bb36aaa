"""Label profiles: how often each feature fires on text of each label (a language, say), and what its firing tells of the label.

Every label counts the same, however many tokens it has. r_g: the share of label g's tokens on which the feature fires, of G labels.

- share: p_g = r_g / sum over h of r_h.
- label_entropy: -sum p_g ln p_g / ln G. G counts all labels of the text, those on which the feature never fires too. 0: it fires on
  one label; 1: on all equally.
- label_information_bits: I(fires; label) of a token whose label is drawn uniformly, and which is drawn uniformly from the tokens of
  that label: H(mean of r_g) - mean of H(r_g), where H(p) = -p log2 p - (1 - p) log2 (1 - p). At most log2 G. It is not corrected for the
  number of tokens N_g: by chance a feature has (1 - 1/G) / (2 ln 2) * mean of 1/N_g if tokens are independent (Miller and Madow), more
  since those of a document are not.
- label_information_matched_bits: the same at equal token frequency. The token's kind (its id) is drawn uniformly from the kinds that the
  label has, then one of its occurrences. So r_g becomes `matched_rate`: the mean, over the kinds of token of label g, of the share of
  their occurrences on which the feature fires. A feature of one label fires on its tokens whatever their frequency, and keeps its
  information. One that fires on a frequent word of a label loses it: the word is one of the label's many kinds. One that fires on all
  frequent words loses what it told because labels differ in how frequent their frequent words are.

Source of shares and entropy: Harrasse, Draye, Jin et al., "Tracing Multilingual Representations in LLMs with Cross-Layer Transcoders" (arXiv
2511.10840), with rates in place of counts and the logarithm of all labels.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cltdb.activations.labels import labels_apart
from cltdb.harvest.statistics import DIGITS, digits, from_digits

ONE = 2.0**44
"""All occurrences of a kind of token. Sums count in parts of it, as whole numbers do not depend on the order in which they are added: int64 holds
those of half a million kinds, exact to 3e-7 for kinds that occur ten million times."""

CELLS_APART = 2**17
"""Sums of single batches that are held, 48 bytes each and layer, before they are added together."""


class TextLabels(NamedTuple):
    """A kind is a token id in text of one label. names [n_labels]; n_tokens, n_kinds int64 [n_labels]: ordinary tokens of each label, and their
    kinds; kind int32 [n_places]: of each place of the text, -1 where no label is; label int64, share int64 [n_kinds]: the label of a kind,
    and what one of its occurrences is of all, in units of 1 / ONE."""

    names: list
    n_tokens: np.ndarray
    n_kinds: np.ndarray
    kind: np.ndarray
    label: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, sequences):
        """Those of a text; None where nothing is kept apart by label."""
        labels = labels_apart(sequences)
        if labels is None:
            return None
        codes = labels.codes.ravel()
        places = np.flatnonzero(codes >= 0)
        n_ids = int(sequences.tokens.max()) + 1
        pairs, found, n = np.unique(
            codes[places].astype(np.int64) * n_ids + sequences.tokens.ravel()[places], return_inverse=True, return_counts=True
        )
        kind = np.full(codes.shape, -1, dtype=np.int32)
        kind[places] = found
        label = pairs // n_ids
        n_kinds = np.bincount(label, minlength=len(labels.names))
        return cls(labels.names, labels.n_tokens, n_kinds, kind, label, np.rint(ONE / n).astype(np.int64))


class Cells(NamedTuple):
    """Sums over firings, by feature and label. cell int64 [n], rising: feature * n_labels + label; firings int64 [n]; shares int64 [n]:
    of `TextLabels.share`; mass float64 [3, n]: of the activations, as `statistics.digits`."""

    cell: np.ndarray
    firings: np.ndarray
    shares: np.ndarray
    mass: np.ndarray

    @property
    def n_bytes(self):
        return sum(column.nbytes for column in self)


def summed(parts):
    """The `Cells` of several, whose cells may be in any order and occur several times."""
    cell, firings, shares, mass = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
    if not len(cell):
        return Cells(cell, firings, shares, mass)
    both = np.sort((cell << 32) | np.arange(len(cell)))  # four times faster than argsort
    cell, order = both >> 32, both & (2**32 - 1)
    begin = np.flatnonzero(np.diff(cell, prepend=-1))
    firings, shares, *mass = (np.add.reduceat(column[order], begin) for column in (firings, shares, *mass))
    return Cells(cell[begin], firings, shares, np.stack(mass))


class LabelCounts:
    """The `Cells` of one layer in the present stretch of text."""

    def __init__(self, labels):
        """labels: `TextLabels`."""
        self.labels = labels
        self.runs = [_none()]

    def add(self, feature, place, activation):
        """One entry per firing; place: in the text."""
        kind = self.labels.kind[place]
        rows = np.flatnonzero(kind >= 0)
        kind = kind[rows]
        cell = feature[rows] * np.int64(len(self.labels.names)) + self.labels.label[kind]
        mass = digits(activation[rows].astype(np.float64))
        self.runs.append(summed([Cells(cell, np.ones(len(cell), dtype=np.int64), self.labels.share[kind], mass)]))
        whole, *later = (len(run.cell) for run in self.runs)
        if sum(later) > max(whole, CELLS_APART):
            self.runs = [summed(self.runs)]

    @property
    def n_bytes(self):
        return sum(run.n_bytes for run in self.runs)

    def take(self):
        """The `Cells` of the stretch; the next one begins."""
        whole, self.runs = summed(self.runs), [_none()]
        return whole


def _none():
    nothing = np.empty(0, dtype=np.int64)
    return Cells(nothing, nothing, nothing, np.empty((DIGITS, 0)))


class Profiles(NamedTuple):
    """Of a range of features, each [n_features, n_labels]: firings, mass (sum of activations), rate, matched_rate, share (NaN where a
    feature never fires on text with a label)."""

    firings: np.ndarray
    mass: np.ndarray
    rate: np.ndarray
    matched_rate: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, cells, labels, features):
        """cells: the `Cells` of the features of a range; labels: `TextLabels`."""
        shape = len(features), len(labels.names)
        at = cells.cell - features.start * shape[1]

        def spread(values):
            whole = np.zeros(shape, dtype=values.dtype)
            whole.ravel()[at] = values
            return whole

        firings = spread(cells.firings)
        rate = firings / labels.n_tokens
        matched = np.minimum(spread(cells.shares) / ONE / labels.n_kinds, 1)
        with np.errstate(invalid="ignore"):
            return cls(firings, spread(from_digits(cells.mass)), rate, matched, rate / rate.sum(axis=1, keepdims=True))

    def columns(self):
        """{column of table features: array [n_features]}."""
        return {
            "label_entropy": entropy(self.share),
            "label_information_bits": information_bits(self.rate),
            "label_information_matched_bits": information_bits(self.matched_rate),
        }

    def rows(self, labels, *, dict_id, layer, first):
        """The rows of table feature_labels, of features `first` and on that fire on text with a label."""
        feature, label = np.nonzero(np.repeat(self.firings.any(axis=1)[:, None], len(labels.names), axis=1))
        columns = {name: pa.array(values[feature, label]) for name, values in self._asdict().items()}
        return pa.table(
            {
                "dict_id": pa.array([dict_id] * len(feature), pa.string()),
                "layer": pa.array(np.full(len(feature), layer, dtype=np.int32)),
                "feature": pa.array((first + feature).astype(np.int32)),
                "label": pa.array(np.array(labels.names, dtype=object)[label], pa.string()),
                "tokens": pa.array(labels.n_tokens[label]),
                **columns,
            }
        )


def entropy(share):
    """Of shares [n, n_labels] that add up to 1, divided by that of equal shares [n]; NaN where they are NaN."""
    terms = np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), share)
    return np.maximum(-terms.sum(axis=1), 0) / np.log(share.shape[1])


def information_bits(rate):
    """I(fires; label) in bits [n], all labels equally frequent; rate [n, n_labels]: the share of each label's tokens on which a feature
    fires."""
    return np.maximum(_coin_bits(rate.mean(axis=1)) - _coin_bits(rate).mean(axis=1), 0)


def _coin_bits(p):
    """Entropy of a coin that shows its face with probability p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.nan_to_num(p * np.log2(p), nan=0) - np.nan_to_num((1 - p) * np.log1p(-p), nan=0) / np.log(2)
