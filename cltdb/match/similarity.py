"""How similar features of two dictionaries are, in blocks: by what they write (cosine of decoders), or by when they fire (correlation of activations)."""

import numpy as np
import torch

from cltdb.model.parts import not_finite

BLOCK_FLOATS = 2**25
"""128 MiB of similarities at a time."""


class Decoders:
    """The decoders of a layer's features to some target layers, in a row. features [n]: those whose decoder is not zero; `rotation` [d_model, d_model], to be
    set: by which all of them are turned."""

    def __init__(self, dictionary, layer, targets):
        self.dictionary, self.layer, self.targets, self.rotation = dictionary, layer, targets, None
        squares = sum(self._read(slice(None), target).square().sum(1) for target in targets)
        if not squares.isfinite().all():
            raise not_finite(layer, "W_dec")
        self.features = squares.nonzero()[:, 0]
        self.norms = squares[self.features].sqrt()
        self._all = len(self.features) == dictionary.n_features

    def __len__(self):
        return len(self.features)

    def rows(self, target, first=0, last=None):
        """Those to one target layer, of the features from place `first` on [n, d_model]."""
        found = self._read(slice(first, last) if self._all else self.features[first:last], target)
        return found if self.rotation is None else found @ self.rotation

    def _read(self, features, target):
        place = target - self.layer
        return self.dictionary.decoder(self.layer, features, slice(place, place + 1))[:, 0].float()


def shared_targets(a, b, layer):
    """The layers that the features of a layer of both dictionaries write to."""
    return [target for target in a.target_layers(layer) if target in b.target_layers(layer)]


@torch.no_grad()
def decoder_cosines(a, b):
    """Blocks [rows, len(b)] of the cosines of two `Decoders`."""
    step = max(1, BLOCK_FLOATS // len(b))
    for first in range(0, len(a), step):
        products = sum(a.rows(target, first, first + step) @ b.rows(target).T for target in a.targets)
        yield products.div_(a.norms[first : first + step, None]).div_(b.norms).clamp_(-1, 1).cpu().numpy()


@torch.no_grad()
def cosines_of_pairs(rows_a, rows_b, first, second):
    """Cosines [n] of pairs of rows; rows_a, rows_b: functions of indices that give them [n, width]; first, second: indices [n]. 0 of a row of zeros."""
    found = []
    for a, b in zip(torch.from_numpy(first).split(2**13), torch.from_numpy(second).split(2**13), strict=True):
        found.append(torch.nn.functional.cosine_similarity(rows_a(a).float(), rows_b(b).float(), dim=1).cpu())
    return torch.cat(found).numpy() if found else np.zeros(0, dtype=np.float32)


class Firings:
    """The activations of a layer's features over a text, sparse. matrix: scipy's csc_array [token, n_features], float64; features: those that fire."""

    def __init__(self, token, feature, value, *, n_tokens, n_features):
        from scipy.sparse import coo_array

        self.matrix = coo_array((value.astype(np.float64), (token, feature)), shape=(n_tokens, n_features)).tocsc()
        self.mean = self.matrix.sum(axis=0) / n_tokens
        self.std = np.sqrt(np.maximum(self.matrix.power(2).sum(axis=0) / n_tokens - self.mean**2, 0))
        self.features = np.flatnonzero(self.std > 1e-7 * self.mean)

    n_tokens = property(lambda self: self.matrix.shape[0])

    def __len__(self):
        return len(self.features)

    def shuffled(self, generator):
        """The same activations at other tokens: each feature keeps its values, and features that fire together still do."""
        found = self.matrix.tocoo()
        token = generator.permutation(self.n_tokens)[found.coords[0]]
        return Firings(token, found.coords[1], found.data, n_tokens=self.n_tokens, n_features=self.matrix.shape[1])


def correlations(a, b):
    """Blocks [rows, len(b)] of the Pearson correlations of two `Firings` of the same text, of the features that vary."""
    step, right = max(1, BLOCK_FLOATS // max(1, len(b))), b.matrix[:, b.features]
    for first in range(0, len(a), step):
        of = a.features[first : first + step]
        products = (a.matrix[:, of].T @ right).toarray() / a.n_tokens
        covariances = products - np.outer(a.mean[of], b.mean[b.features])
        yield (covariances / np.outer(a.std[of], b.std[b.features])).clip(-1, 1).astype(np.float32)


def correlations_of_pairs(a, b, first, second):
    """Pearson correlations [n] of pairs of features of two `Firings` of the same text; NaN where one does not vary. first, second: indices [n]."""
    found = np.zeros(len(first))
    for start in range(0, len(first), 2**12):
        part = slice(start, start + 2**12)
        products = a.matrix[:, first[part]].multiply(b.matrix[:, second[part]]).sum(axis=0) / a.n_tokens
        covariances = products - a.mean[first[part]] * b.mean[second[part]]
        deviations = a.std[first[part]] * b.std[second[part]]
        varies = np.isin(first[part], a.features) & np.isin(second[part], b.features)
        found[part] = np.where(varies, covariances / np.where(varies, deviations, 1), np.nan)
    return found.clip(-1, 1)
