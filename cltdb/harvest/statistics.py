"""What is known of a feature as a whole: running statistics over text, and from its weights the tokens it promotes and is driven by, and
similar features."""

import numpy as np
import torch

from cltdb.harvest.lens import promoted
from cltdb.model.kinds import MLP_INPUT, MLP_OUTPUT

CHUNK_FLOATS = 2**25  # 128 MiB of float32 per intermediate matrix
DECODER_FLOATS = 2**27  # 512 MiB of float32 for decoders that are compared, twice
TOKENS_SHOWN = 10
NEIGHBOURS = 10
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
BINS, BINS_PER_OCTAVE = 32, 4
BIN_SHIFT, OCTAVE_SHIFT = 21, 23  # of the bits of a positive float32: what is left is the number of its bin, of its octave
DIGITS, DIGIT = 3, 2.0**28


class RunningStatistics:
    """How often and how strongly each feature of one layer fires. All are integers or maxima, so that they do not depend on the order in
    which the text was seen.

    maximum float32 [n_features]; histogram int64 [n_features, 32]: firings by bin, a quarter of an octave (the interval between two powers
    of two; a bin is equally wide as its neighbours of the same octave). The last four bins are the octave of the feature's maximum, and
    the first counts all that is smaller too. sums float64 [2, 3, n_features]: of the activations and of their squares, as whole numbers
    of 1, 2^-28 and 2^-56 (exact to sums of 2^53; what is smaller than 2^-56 is cut off).
    """

    def __init__(self, n_features):
        self.maximum = np.zeros(n_features, dtype=np.float32)
        self.histogram = np.zeros((n_features, BINS), dtype=np.int64)
        self.sums = np.zeros((2, DIGITS, n_features))

    def add(self, feature, activation):
        """One entry per firing."""
        maximum = self.maximum.copy()
        np.maximum.at(maximum, feature, activation)
        self._raise_to(maximum)
        column = np.maximum((activation.view(np.int32) >> BIN_SHIFT) - first_bin(self.maximum)[feature], 0)
        np.add.at(self.histogram.ravel(), feature * BINS + column, 1)
        value = activation.astype(np.float64)
        for sums, values in zip(self.sums, (value, value * value), strict=True):
            for number, whole in enumerate(digits(values)):
                sums[number] += np.bincount(feature, weights=whole, minlength=len(maximum))

    def columns(self):
        """{name: array} of all that is known, of the histogram the bins with firings."""
        bins = np.flatnonzero(self.histogram)
        counted = {"bins": bins.astype(np.int32), "n": self.histogram.ravel()[bins].astype(np.int32)}
        return {"maximum": self.maximum, "sums": self.sums, **counted}

    def absorb(self, columns):
        """The `columns` of other text."""
        other = RunningStatistics(len(self.maximum))
        other.maximum, other.histogram.ravel()[columns["bins"]] = columns["maximum"], columns["n"]
        both = np.maximum(self.maximum, other.maximum)
        self._raise_to(both)
        other._raise_to(both)
        self.histogram += other.histogram
        self.sums += columns["sums"]

    def _raise_to(self, maximum):
        """Makes `maximum` the maximum: where it is of a higher octave, the bins move down."""
        moves = first_bin(maximum) - first_bin(self.maximum)
        rows = np.nonzero(moves)[0]
        column = np.maximum(np.arange(BINS) - moves[rows, None], 0)
        moved = np.zeros((len(rows), BINS), dtype=self.histogram.dtype)
        np.add.at(moved, (np.arange(len(rows))[:, None], column), self.histogram[rows])
        self.histogram[rows] = moved
        self.maximum = maximum

    @property
    def count(self):
        """On how many tokens each feature fires [n_features]."""
        return self.histogram.sum(axis=1)

    @property
    def mean(self):
        """Of the activations above zero [n_features]; zero where there is none."""
        return self._mean(0)

    @property
    def std(self):
        """Standard deviation of the activations above zero [n_features]; zero where there is none."""
        return np.sqrt(np.maximum(self._mean(1) - self.mean**2, 0))

    def _mean(self, power):
        return from_digits(self.sums[power]) / np.maximum(self.count, 1)

    def bins(self):
        """(feature, lower edge float32, number of firings) of all bins with firings, by feature, then edge."""
        feature, column = np.nonzero(self.histogram)
        return feature, _edge(first_bin(self.maximum)[feature] + column), self.histogram[feature, column]

    def quantiles(self, shares, least=None):
        """The activations [n_features, n_shares] below which these shares of the firings are, NaN where a feature never fires. The firings
        of a bin count as spread evenly over it; the first bin begins at 0, the last one ends at the maximum, and none begins below
        `least` [n_features], which no activation is."""
        below = np.cumsum(self.histogram, axis=1)
        wanted = below[:, -1:] * np.asarray(shares)
        column = np.minimum((below[:, None] < wanted[..., None]).sum(axis=2), BINS - 1)
        bins = first_bin(self.maximum)[:, None] + column
        low, high = np.where(column > 0, _edge(bins), 0), np.minimum(_edge(bins + 1), self.maximum[:, None])
        if least is not None:
            low = np.minimum(np.maximum(low, least[:, None]), high)
        inside = np.take_along_axis(self.histogram, column, axis=1)
        before = np.take_along_axis(below, column, axis=1) - inside
        with np.errstate(invalid="ignore"):
            return low + (high - low) * ((wanted - before) / inside)


def digits(values):
    """Values of at least 0 as whole numbers of 1, 2^-28 and 2^-56, float64 [3, n]; sums of them are exact to 2^53."""
    found = np.empty((DIGITS, len(values)))
    for whole in found:
        np.floor(values, out=whole)
        values = (values - whole) * DIGIT
    return found


def from_digits(sums):
    """What sums of `digits` stand for; sums [3, n]."""
    high, middle, low = sums
    return high + (middle + low / DIGIT) / DIGIT


def first_bin(maximum):
    """The bin, counted from zero up, that is the first of 32 whose last four are the octave of `maximum`."""
    return (maximum.view(np.int32) >> OCTAVE_SHIFT) * BINS_PER_OCTAVE - (BINS - BINS_PER_OCTAVE)


def _edge(bins):
    """The lower edge of bins, float32."""
    return (np.maximum(bins, 0).astype(np.int32) << BIN_SHIFT).view(np.float32)


@torch.no_grad()
def logit_effects(lm, dictionary, layer):
    """What each feature writes to the logits directly, as `_extremes` of W_U (final norm gain * sum over targets of W_dec), demeaned
    over the vocabulary. None where they write into the MLP, behind which no direction has a fixed meaning."""
    if dictionary.writes == MLP_INPUT:
        return _no_extremes(dictionary.n_features)
    return _extremes(promoted(lm, dictionary, layer), lm.unembedding_weight().float(), demean=True)


@torch.no_grad()
def embedding_effects(lm, dictionary, layer):
    """What each token's embedding adds to each feature directly, along the residual stream alone, in units of the pre-activation before
    the norm's scale per token, as `_extremes` of <embedding, residual direction of W_enc>. None where they read the MLP output, which is no
    sum of embeddings."""
    if dictionary.reads == MLP_OUTPUT:
        return _no_extremes(dictionary.n_features)
    embeddings = lm.embedding(torch.arange(lm.vocab_size, device=lm.device))  # as they enter the residual stream
    directions = lm.residual_directions(layer, dictionary.encoder(layer))
    return _extremes(directions.float(), embeddings.float(), demean=False)


def _no_extremes(n_features):
    none = np.empty((n_features, 0), dtype=np.int32), np.empty((n_features, 0), dtype=np.float32)
    return none, none


def _extremes(vectors, tokens, *, demean):
    """((token, value) of the largest, (token, value) of the smallest) products of vectors [n_features, d_model] with tokens [vocab,
    d_model], each [n_features, 10], most extreme first; demean: less the mean over the vocabulary."""
    n_shown = min(TOKENS_SHOWN, len(tokens))
    largest, smallest = [], []
    for rows in vectors.split(max(1, CHUNK_FLOATS // len(tokens))):
        effects = rows @ tokens.T
        if demean:
            effects -= effects.mean(dim=1, keepdim=True)
        largest.append(effects.topk(n_shown, dim=1))
        smallest.append(effects.topk(n_shown, dim=1, largest=False))
    return tuple(
        (
            torch.cat([part.indices for part in parts]).int().cpu().numpy(),
            torch.cat([part.values for part in parts]).cpu().numpy(),
        )
        for parts in (largest, smallest)
    )


@torch.no_grad()
def similar_features(dictionary, layer):
    """(neighbour, cosine), [n_features, up to 10]: the features of the layer with the most similar decoders (all targets
    together)."""
    W = dictionary.W_dec[layer].flatten(1)
    n_neighbours = min(NEIGHBOURS, len(W) - 1)
    n_columns = min(len(W), max(1, DECODER_FLOATS // W.shape[1]))
    n_rows = max(1, min(n_columns, CHUNK_FLOATS // n_columns))
    neighbours, cosines = [], []
    for first in range(0, len(W), n_rows):
        rows, found = _directions(W[first : first + n_rows]), []
        for start in range(0, len(W), n_columns):
            cosine = rows @ _directions(W[start : start + n_columns]).T
            itself = torch.arange(first - start, first - start + len(rows), device=W.device)
            here = ((itself >= 0) & (itself < cosine.shape[1])).nonzero()[:, 0]
            cosine[here, itself[here]] = -2  # never its own neighbour
            best = cosine.topk(min(n_neighbours, cosine.shape[1]), dim=1)
            found.append((best.values, best.indices + start))
        values, indices = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
        order = values.sort(dim=1, descending=True, stable=True).indices[:, :n_neighbours]
        neighbours.append(indices.gather(1, order).int())
        cosines.append(values.gather(1, order))
    return torch.cat(neighbours).cpu().numpy(), torch.cat(cosines).cpu().numpy()


def _directions(decoders):
    """[n, width] in float32, each of length 1."""
    return torch.nn.functional.normalize(decoders.float(), dim=1)
