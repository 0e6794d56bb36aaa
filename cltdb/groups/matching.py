"""Comparison of pieces of text at equal token frequency and length: a label feature is neither a frequency feature nor one of long pieces.

Tokens are put in classes by frequency, each an octave: a factor of two. The frequency of a token id is the mean over labels of its share of the
label's tokens, so a label does not count more because it has more text. Of two pieces, one of each of two labels, as many tokens of each class are
compared as both have: of class o, in which one has a tokens and the other b, min(a, b) drawn from each. A piece's score is the sum of its
activations on the tokens drawn. Where what a feature does on a token depends on the token's class alone, by a rule or at random, the two
scores have one distribution, so that each is the larger one equally often. (A mean over all of a class's tokens would not do: that of fewer tokens
is noisier, and a sparse feature's is skewed.) A pair of pieces counts as much as the share of their tokens that is drawn.
Source: AUC adjusted for a covariate by strata, Janes and Pepe (Biometrika 96, 2009); the strata are the classes, here within each pair.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch

LEAST_SEEN = 4
"""Occurrences in the smallest label below which the frequency of its tokens is not known: all rarer ones are one class."""
MOST_PIECES = 400
"""Pieces of a label that are compared, evenly chosen: time grows with the square."""
EQUAL = 1e-5
"""Scores that differ by less than this part of them are equal: activations are float32."""
AT_ONCE = 32
"""Sums of features that are compared together: memory grows with it."""


def frequency_classes(tokens, label, n_labels):
    """The class [n] int64 of each token id of `tokens` [n], 0 the rarest; label [n]: codes."""
    _, ids = np.unique(tokens, return_inverse=True)
    n = np.zeros((n_labels, ids.max() + 1))
    np.add.at(n, (label, ids), 1)
    of_label = n.sum(axis=1, keepdims=True)
    least = LEAST_SEEN / of_label.min() / n_labels
    octave = np.floor(np.log2(np.maximum((n / of_label).mean(axis=0) / least, 0.5))).astype(np.int64) + 1
    return octave[ids]


class Matched(NamedTuple):
    """label [n_pieces]; n [n_pieces, n_classes]: tokens of each piece and class; values [n_tokens, n_features], sparse: activations on tokens,
    those of a piece together, in it those of a class, and these in an order drawn at random. All codes int64."""

    label: np.ndarray
    n: np.ndarray
    values: object

    @classmethod
    def of(cls, label, piece, frequency, values, *, seed):
        """piece, frequency [n_tokens]: of tokens in any order, the number of the piece and the class; values: a scipy.sparse array."""
        n = np.zeros((len(label), frequency.max(initial=0) + 1), dtype=np.int64)
        np.add.at(n, (piece, frequency), 1)
        drawn = np.random.default_rng(seed).random(len(piece))
        return cls(label, n, values.tocsr()[np.lexsort((drawn, frequency, piece))])

    def auc(self, code, weights):
        """(AUC of each sum of features [n_sums], share of tokens that matching keeps) of label `code` from each other label. The AUC is the mean over
        the others with which it has classes in common, None where there are none; the share that over all others. weights [n_features, n_sums]."""
        shares = {other: self._shares(code, other) for other in sorted(set(self.label.tolist()) - {code})}
        kept = float(np.mean([share.mean() for share in shares.values()])) if shares else 0.0
        shares = {other: share for other, share in shares.items() if share.any()}
        if not shares:
            return None, kept
        found = []
        for start in range(0, weights.shape[1], AT_ONCE):
            of_tokens = torch.from_numpy(self.values @ weights[:, start : start + AT_ONCE].astype(np.float64))
            sums = torch.cat([torch.zeros_like(of_tokens[:1]), of_tokens.cumsum(0)])
            found.append(sum(self._won(code, other, sums, share) / share.sum() for other, share in shares.items()) / len(shares))
        return np.concatenate(found) if found else np.zeros(0), kept

    def apart(self):
        """Pairs of labels (a, b) that have no class in common, so that nothing of one is compared with the other."""
        classes = {code: self.n[self.label == code].any(axis=0) for code in sorted(set(self.label.tolist()))}
        return [(a, b) for a, b in combinations(classes, 2) if not (classes[a] & classes[b]).any()]

    def _shares(self, code, other):
        """Of every two pieces the share of their tokens that is drawn [n_own, n_other]."""
        own, others = self.n[self.label == code], self.n[self.label == other]
        drawn = np.array([np.minimum(of_piece, others).sum(axis=1) for of_piece in own])
        return 2 * drawn / (own.sum(axis=1)[:, None] + others.sum(axis=1))

    def _won(self, code, other, sums, share):
        """Sum over pairs of pieces of their share where the first has the larger score, half of it where they are equal [n_sums]. sums [n_tokens +
        1, n_sums]: of all tokens before one, so that a class's first k from `begin` on add up to sums[begin + k] - sums[begin]."""
        n, begins = torch.from_numpy(self.n), torch.from_numpy(np.cumsum(self.n).reshape(self.n.shape) - self.n)
        own, others = (torch.from_numpy(np.flatnonzero(self.label == one)) for one in (code, other))
        before, won = _rows(sums, begins[others]), torch.zeros(sums.shape[1], dtype=torch.float64)
        for piece, of_piece in zip(own, torch.from_numpy(share), strict=True):
            drawn = torch.minimum(n[piece], n[others])
            mine = _rows(sums, begins[piece] + drawn) - _rows(sums, begins[piece][None])
            theirs = _rows(sums, begins[others] + drawn) - before
            equal = (mine - theirs).abs() <= EQUAL * torch.maximum(mine.abs(), theirs.abs())
            won += of_piece @ torch.where(equal, 0.5, (mine > theirs).double())
        return won.numpy()


def _rows(sums, places):
    """The rows of sums at places [n_pieces, n_classes], added up over classes [n_pieces, n_sums]."""
    return sums.index_select(0, places.ravel()).view(*places.shape, -1).sum(1)
