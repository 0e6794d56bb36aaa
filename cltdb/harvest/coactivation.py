"""Which features fire at the same token: exact sums over the counted tokens, a uniform sample of the text's ordinary ones.

While the pass runs, the firings at these tokens go to files (`parts`). Afterwards the sums of any two layers are products of two sparse
matrices [token, feature]. Memory: the firings of two layers, and a block of their pairs.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch


def choose_tokens(sequences, *, n_tokens, seed):
    """Places (sequence * context + position) of `n_tokens` different random ordinary tokens, all where there are fewer, in the order of
    the text."""
    places = np.flatnonzero(sequences.ordinary)
    if n_tokens >= len(places):
        return places
    drawn = np.random.default_rng([seed, 1]).choice(len(places), size=n_tokens, replace=False)  # the pool has [seed]
    return places[np.sort(drawn)]


def counted_firings(found, layer, *, shape, device="cpu"):
    """The activations of a layer's features at the counted tokens, sparse float64 of `shape` (n_counted, n_features). found: `parts.Found`."""
    token, feature, activation = (torch.from_numpy(column).to(device) for column in found.firings(layer, "counted"))
    return _sparse(torch.stack([token, feature]).long(), activation.double(), shape)


class Coactivation(NamedTuple):
    """Sums over the counted tokens for every target j and source i, float64 [n_targets, n_sources]: of a_j a_i, of a_i where j is
    active, and the number of tokens where both are."""

    products: torch.Tensor
    sources: torch.Tensor
    tokens: torch.Tensor


def coactivation(targets, sources):
    """The sums of two layers: targets sparse [n_targets, n_counted], sources sparse [n_counted, n_sources]."""
    where_target, where_source = _indicator(targets), _indicator(sources)
    pairs = ((targets, sources), (where_target, sources), (where_target, where_source))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return Coactivation(*(torch.sparse.mm(left, right).to_dense() for left, right in pairs))


def rows_of(matrix, rows):
    """The rows `rows`, a slice, of a sparse matrix."""
    bounds = torch.tensor([rows.start, rows.stop], device=matrix.device)
    low, high = torch.searchsorted(matrix.indices()[0].contiguous(), bounds).tolist()
    indices = matrix.indices()[:, low:high].clone()
    indices[0] -= rows.start
    return _sparse(indices, matrix.values()[low:high], (rows.stop - rows.start, matrix.shape[1]))


def _indicator(matrix):
    return _sparse(matrix.indices(), torch.ones_like(matrix.values()), matrix.shape)


def _sparse(indices, values, shape):
    """Entries that are sorted by row, then column, each once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")  # said although it is asked for
        return torch.sparse_coo_tensor(indices, values, tuple(shape), is_coalesced=True, check_invariants=False)
