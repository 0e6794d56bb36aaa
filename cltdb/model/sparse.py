"""Decoding over the (token, feature) pairs that fired.

A plain formulation on torch's embedding_bag: each token is a bag of features, its output the weighted sum of their decoder rows.
Cost and memory follow the number of pairs, never n_tokens * n_features. The dense twin is `dense_decode` in tests/model.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F


class Pairs(NamedTuple):
    """Active pairs of one source layer, ordered by token: token, feature, value, each [n_pairs]."""

    token: torch.Tensor
    feature: torch.Tensor
    value: torch.Tensor


def decode(pairs, W_dec, n_tokens):
    """Sum over each token's pairs of value * W_dec[feature]: W_dec [n_features, n_targets, d_model] to [n_tokens, n_targets,
    d_model]."""
    offsets = torch.searchsorted(pairs.token, torch.arange(n_tokens, device=pairs.token.device))
    out = F.embedding_bag(pairs.feature, W_dec.flatten(1), offsets, mode="sum", per_sample_weights=pairs.value)
    return out.unflatten(1, W_dec.shape[1:])
