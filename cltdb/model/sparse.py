"""The arithmetic of the (token, feature) pairs that fired: decoding, its gradients, and the encoder's.

Everything is made of two primitives, `weighted_rows` and `pair_dots`, whose cost and memory follow the number of pairs and never
n_tokens * n_features: torch operations on the CPU, Triton kernels on CUDA. Where more than DENSE_FRAC of all pairs are active, both
turn into the dense matrix product that is then faster. The dense twin of every path is `tests/dense_reference.py`.
"""

import os
import warnings
from functools import cached_property
from importlib.util import find_spec

import torch
from torch.nn import functional as F

DENSE_FRAC = 0.05  # of all (token, feature) pairs; a pair costs 15 times its share of a product on two cores, up to 25 on an H200
CHUNK_PAIRS = 4096


class Pairs:
    """The pairs of one source layer, ordered by token: token, feature [n_pairs] int64."""

    def __init__(self, token, feature, *, n_tokens, n_features):
        self.token, self.feature, self.n_tokens, self.n_features = token, feature, n_tokens, n_features

    def __len__(self):
        return len(self.token)

    @property
    def are_many(self):
        """Whether a dense matrix product is faster than going through the pairs."""
        return len(self) > DENSE_FRAC * self.n_tokens * self.n_features

    @cached_property
    def token_offsets(self):
        """Where each token's pairs begin [n_tokens]."""
        return _offsets(self.token, self.n_tokens)

    @cached_property
    def by_feature(self):
        """(order that sorts the pairs by feature and then token, where each feature's pairs begin [n_features])."""
        order = self.feature.int().argsort(stable=True)
        return order, _offsets(self.feature[order], self.n_features)

    def where(self, mask):
        """The pairs that a mask [n_pairs] keeps."""
        return Pairs(self.token[mask], self.feature[mask], n_tokens=self.n_tokens, n_features=self.n_features)


def _offsets(sorted_rows, n_rows):
    return torch.searchsorted(sorted_rows, torch.arange(n_rows, device=sorted_rows.device))


def cuda_kernels(tensor):
    """The module of Triton kernels where they serve: CUDA tensors but float64 ones, with TRITON_INTERPRET=1 also those of the CPU."""
    there = tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    if not there or tensor.dtype == torch.float64 or not find_spec("triton"):
        return None
    from cltdb.model import triton_kernels

    return triton_kernels


def weighted_rows(table, row, weight, offsets):
    """[n_bags, width]: per bag the sum of weight * table[row] over its pairs, offsets[bag] to the next bag's offset.

    table [n_rows, width], row and weight [n_pairs], offsets [n_bags]; empty bags give zeros. Sums in float32 at least.
    """
    n_bags = len(offsets)
    if len(row) > DENSE_FRAC * n_bags * len(table):
        bag = torch.searchsorted(offsets, torch.arange(len(row), device=row.device), right=True) - 1
        return weight.new_zeros(n_bags, len(table)).index_put_((bag, row), weight, accumulate=True).to(table.dtype) @ table
    if kernels := cuda_kernels(table):
        return kernels.weighted_rows(table, row, weight, offsets)
    return F.embedding_bag(row, table, offsets, mode="sum", per_sample_weights=weight.to(table.dtype))


def pair_dots(left, right, pairs):
    """[n_pairs]: left[token] . right[feature] of each pair; left [n_tokens, width], right [n_features, width]."""
    if pairs.are_many:
        return (left @ right.T)[pairs.token, pairs.feature]
    if kernels := cuda_kernels(left):
        return kernels.pair_dots(left, pairs.token, right, pairs.feature)
    if not left.is_cuda and left.dtype in (torch.float32, torch.float64):
        ends = torch.cat([pairs.token_offsets, torch.tensor([len(pairs)])])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            shape = torch.sparse_csr_tensor(
                ends, pairs.feature, left.new_zeros(len(pairs)), (pairs.n_tokens, pairs.n_features), check_invariants=False
            )
        return torch.sparse.sampled_addmm(shape, left, right.T, beta=0).values()
    chunks = zip(pairs.token.split(CHUNK_PAIRS), pairs.feature.split(CHUNK_PAIRS), strict=True)
    dtype = torch.promote_types(left.dtype, torch.float32)
    return torch.cat([(left[token].to(dtype) * right[feature].to(dtype)).sum(1) for token, feature in chunks])


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, W_dec, pairs, norm_features, taken):
        ctx.pairs, ctx.norm_features, ctx.taken = pairs, norm_features, taken
        out = weighted_rows(W_dec.flatten(1), pairs.feature, value, pairs.token_offsets).unflatten(1, W_dec.shape[1:])
        norms = _row_norms(W_dec.flatten(1), norm_features)
        ctx.save_for_backward(value, W_dec, norms)
        return out, norms, None if taken is None else W_dec.flatten(0, 1).index_select(0, taken)

    @staticmethod
    def backward(ctx, out_gradient, norm_gradient, taken_gradient):
        (value, W_dec, norms), pairs = ctx.saved_tensors, ctx.pairs
        rows, gradient = W_dec.flatten(1), out_gradient.flatten(1)
        share = None
        if norms is not None:
            share = norm_gradient / norms.clamp(min=torch.finfo(norms.dtype).tiny)
        order, offsets = pairs.by_feature
        if (kernels := cuda_kernels(rows)) and not pairs.are_many:  # both gradients in one pass over the rows
            everywhere = share if ctx.norm_features is None else None
            row_gradient, dots = kernels.decoder_gradients(
                gradient, pairs.token[order], value[order], offsets, rows, row_weight=everywhere
            )
            value_gradient = torch.empty_like(value)
            value_gradient[order] = dots.to(value.dtype)
        else:
            value_gradient = pair_dots(gradient, rows, pairs).to(value.dtype)
            row_gradient = weighted_rows(gradient, pairs.token[order], value[order], offsets)
            if share is not None and ctx.norm_features is None:
                row_gradient.addcmul_(rows, share.to(rows.dtype)[:, None])
        if share is not None and ctx.norm_features is not None:
            chosen = rows[ctx.norm_features] * share.to(rows.dtype)[:, None]
            row_gradient.index_add_(0, ctx.norm_features, chosen)
        row_gradient = row_gradient.view_as(W_dec)
        if ctx.taken is not None:
            row_gradient.flatten(0, 1).index_add_(0, ctx.taken, taken_gradient)
        return value_gradient, row_gradient, None, None, None


def _row_norms(rows, features):
    """Norms [n] in float32 at least, of all rows (features None) or of those named; None for an empty choice."""
    if features is not None and not len(features):
        return None
    dtype = torch.promote_types(rows.dtype, torch.float32)
    return torch.linalg.vector_norm(rows if features is None else rows[features], dim=1, dtype=dtype)


NO_FEATURES = torch.empty(0, dtype=torch.int64)


def decode(value, pairs, W_dec):
    """Sum over each token's pairs of value * W_dec[feature]: value [n_pairs], W_dec [n_features, n_targets, d_model] to
    [n_tokens, n_targets, d_model]."""
    return _Decode.apply(value, W_dec, pairs, NO_FEATURES, None)[0]


def decode_and_more(value, pairs, W_dec, *, features=None, taken=None):
    """(as `decode`; the norms of the features' concatenated decoders [n_features], or of `features` [n] alone; the rows `taken` [n], each
    once, of the decoders as [n_features * n_targets, d_model], None for None).

    One function for all, so that the gradient of the decoders is written once."""
    return _Decode.apply(value, W_dec, pairs, features, taken)


class _PreActivations(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W_enc, b_enc, value, pairs):
        ctx.pairs = pairs
        ctx.save_for_backward(x, W_enc)
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):
        (x, W_enc), pairs = ctx.saved_tensors, ctx.pairs
        order, offsets = pairs.by_feature
        x_gradient = W_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = weighted_rows(W_enc, pairs.feature, gradient, pairs.token_offsets)
        if ctx.needs_input_grad[1]:
            W_gradient = weighted_rows(x, pairs.token[order], gradient[order], offsets).to(W_enc.dtype)
        b_gradient = feature_sums(gradient, pairs)
        return x_gradient, W_gradient, b_gradient, None, None


def feature_sums(value, pairs):
    """[n_features]: the sum of the values [n_pairs] of each feature's pairs, in a fixed order (but float64 on CUDA)."""
    if kernels := cuda_kernels(value):
        order, offsets = pairs.by_feature
        return kernels.bag_sums(value[order], offsets)
    return value.new_zeros(pairs.n_features).index_add_(0, pairs.feature, value)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, pairs):
        ctx.pairs = pairs
        return feature_sums(value, pairs)

    @staticmethod
    def backward(ctx, gradient):
        return gradient[ctx.pairs.feature], None


def summed(value, pairs):
    """`feature_sums` with their gradient."""
    return _Summed.apply(value, pairs)


def pre_activations(x, W_enc, b_enc, value, pairs):
    """`value` [n_pairs], the pre-activations x[token] . W_enc[feature] + b_enc[feature] of the pairs, with their gradients.

    The values are known already, from the encoder's pass that chose the pairs and kept nothing else of it: that is what keeps memory
    from growing with n_features. x [n_tokens, d_model], W_enc [n_features, d_model], b_enc [n_features].
    """
    return _PreActivations.apply(x, W_enc, b_enc, value, pairs)
