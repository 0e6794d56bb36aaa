"""Comparison of pieces of text at equal token frequency: a label feature is not a frequency feature.

Tokens are put in classes by frequency, each an octave: a factor of two. The frequency of a token id is the mean over labels of its share of the
label's tokens, so a label does not count more because it has more text. Two pieces, one of each of two labels, are compared at the distribution
over classes that both have: class o counts min(p_o, q_o), of the shares p and q of the pieces' tokens in each class, and a piece's score is the mean
over classes, weighted so, of its mean activation in the class. A feature whose activation depends on the class alone then has equal scores in
every two pieces, whatever the pieces are made of. A pair of pieces counts as much as the share of tokens that it keeps, the sum of min(p_o, q_o).
Source: AUC adjusted for a covariate by strata, Janes and Pepe (Biometrika 96, 2009); the strata are the classes, here within each pair.
"""

from typing import NamedTuple

import numpy as np
import torch

LEAST_SEEN = 4
"""Occurrences in the smallest label below which the frequency of its tokens is not known: all rarer ones are one class."""
MOST_PIECES = 400
"""Pieces of a label that are compared, evenly chosen: time grows with the square."""
EQUAL = 1e-5
"""Scores that differ by less than this part of them are equal: activations are float32."""


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
    """label int64 [n_pieces]; share [n_pieces, n_classes]: of each piece's tokens in each class; means float32 [n_pieces, n_classes,
    n_features]: the mean activation there, 0 where the piece has no token."""

    label: np.ndarray
    share: np.ndarray
    means: np.ndarray

    def auc(self, code, weights):
        """(AUC of each sum of features [n_sums], share of tokens that matching keeps) of label `code` from each other label, the means over the
        others. weights [n_features, n_sums]. None in place of the AUCs where the label has no frequencies in common with another one."""
        weights = torch.from_numpy(weights.astype(np.float32))
        values, share = torch.from_numpy(self.means) @ weights, torch.from_numpy(self.share)
        own, found, kept = self.label == code, [], []
        for other in sorted(set(self.label.tolist()) - {code}):
            won, of_pairs = _comparisons(values[own], share[own], *(part[self.label == other] for part in (values, share)))
            kept.append(float(of_pairs.mean()))
            found.append(won / of_pairs.sum() if kept[-1] else None)
        if not found or any(one is None for one in found):
            return None, float(np.mean(kept)) if kept else 0.0
        return torch.stack(found).mean(0).numpy(), float(np.mean(kept))


def _comparisons(own, own_share, other, other_share):
    """(sum over pairs of pieces of what they keep where the first has the larger score, half of it where they are equal [n_sums], what each pair
    keeps [n_own, n_other])."""
    won, kept = torch.zeros(own.shape[-1], dtype=torch.float64), []
    for values, share in zip(own, own_share, strict=True):
        common = torch.minimum(share, other_share)
        mine = common.float() @ values
        theirs = torch.einsum("pc,pcs->ps", common.float(), other)
        equal = (mine - theirs).abs() <= EQUAL * torch.maximum(mine.abs(), theirs.abs())
        kept.append(common.sum(1))
        won += kept[-1] @ torch.where(equal, 0.5, (mine > theirs).double()).double()
    return won, torch.stack(kept)
