"""The penalty that makes decoders orthogonal: the mean squared cosine of pairs of them, over a sample that is new in every step.

A layer of the scope has N features with a decoder each: `source`, the features that read in a layer, by their decoders to all layers that
they write to, concatenated; `target`, the features of all source layers that write to a layer, by their decoders to it. Over all pairs of
different features i, j of the layer its penalty is

    none          mean of cos²(i, j)
    coactivation  Σ n_ij cos²(i, j) / Σ n_ij, n_ij: tokens of the (micro-)batch, of all ranks, on which both fire; 0 where no two fire
                  together. It is the mean over all cases of two features that fire on one token.

The mean over the layers, all weighing the same, times coefficient * n_layers * d_model enters the loss: n_layers * d_model is the
reconstruction loss of outputs that are zero (in training units an output has the mean norm sqrt(d_model)), so that with coefficient 1 a mean
squared cosine of 0.01 costs as much as an FVU of 0.01. `normalize: false` puts the dot product, in training units, in the cosine's place.

The sample is unbiased. Of a layer, `sample` decoders of d_model are drawn without repetition: n = `sample` features, of scope source
`sample` over the number of layers that a feature writes to, at least 2. They fall into groups of at most GROUP; only pairs within a group
are compared, so that cost grows with n. Every pair is as likely to be compared as any other, and the share of pairs compared is fixed, so
the mean of cos² over these has the mean over all pairs as its expectation. With coactivation their sum is divided by that share; Σ n_ij is that of
all pairs, known exactly from how many features fire on each token. Gradients are unbiased alike. Of a sample of all decoders whose
features are at most GROUP nothing is random.

Source: Miller, Draye and Schölkopf, "Identifying intervenable and interpretable features via orthogonality regularization" (arXiv
2602.04718). Their code sums (d_i . d_j)² over the C(n, 2) pairs of a sample of n = 1024 features of one layer, beside a relative
error: `normalize: false` with a coefficient of C(n, 2) times theirs. So theirs changes its meaning with n, and smaller decoders satisfy it as
well as orthogonal ones do, while activations grow. Their logged mean divides the sum over i < j by all n² pairs and is half the mean;
here sums over both orders are divided by the number of both orders.
"""

from typing import NamedTuple

import numpy as np
import torch

GROUP = 128
"""Features of which all pairs are compared."""


class Drawn(NamedTuple):
    """What was drawn of a layer of the scope: its source layers, first to last; source and feature [n] in groups of group_size, of which the
    last may be smaller; how many (ordered) pairs these groups have, and how many the layer has."""

    sources: range
    source: np.ndarray
    feature: np.ndarray
    group_size: int
    n_compared: int
    n_pairs: int

    @property
    def n_places(self):
        """Places in the groups, the last one filled up."""
        return -(-len(self.feature) // self.group_size) * self.group_size


class Part(NamedTuple):
    """What of a layer of the scope this rank has in one source layer: features [n], of its shard, at their places [n] among those drawn."""

    layer: int
    place: torch.Tensor
    feature: torch.Tensor


class Sample:
    """The decoders that one step compares: the same on every rank for the same seed, a list of integers.

    n_targets: per source layer, to how many layers it writes, its own first. penalty: section `train.orthogonality`. `rows`: per source
    layer those [n] that this rank gives of its decoders as [n_features * n_targets, d_model], on the device."""

    def __init__(self, penalty, *, n_features, n_targets, seed, parallel, device):
        self.penalty, self.n_targets, self.parallel = penalty, n_targets, parallel
        self.layers = [self._drawn(layer, n_features, seed) for layer in range(len(n_targets))]
        mine = parallel.features(n_features)
        parts = [self._parts(source, mine) for source in range(len(n_targets))]
        rows = [np.concatenate([self._rows(source, part) for part in of_source]) for source, of_source in enumerate(parts)]
        numbers = rows + [numbers for of_source in parts for part in of_source for numbers in part[1:]]
        moved = iter(torch.from_numpy(np.concatenate(numbers)).to(device).split(list(map(len, numbers))))
        self.rows = [next(moved) for _ in rows]
        self.parts = [[Part(part.layer, next(moved), next(moved)) for part in of_source] for of_source in parts]

    of_source = property(lambda self: self.penalty.scope == "source")

    def _drawn(self, layer, n_features, seed):
        writing = [source for source in range(layer + 1) if layer - source < self.n_targets[source]]
        sources = range(layer if self.of_source else writing[0], layer + 1)
        n_all = len(sources) * n_features
        n = min(n_all, max(2, self.penalty.sample // (self.n_targets[layer] if self.of_source else 1)))
        drawn = np.random.default_rng([*seed, layer]).choice(n_all, n, replace=False)
        group_size = -(-n // -(-n // GROUP))
        n_full, rest = divmod(n, group_size)
        n_compared = n_full * group_size * (group_size - 1) + rest * (rest - 1)
        source, feature = drawn // n_features + sources[0], drawn % n_features
        return Drawn(sources, source, feature, group_size, n_compared, n_all * (n_all - 1))

    def _parts(self, source, mine):
        """The `Part`s, still of numpy arrays, that the rank with the slice `mine` of the features has in a source layer."""
        parts = []
        for layer, drawn in enumerate(self.layers):
            if source in drawn.sources:
                here = (drawn.source == source) & (drawn.feature >= mine.start) & (drawn.feature < mine.stop)
                place = np.flatnonzero(here)
                parts.append(Part(layer, place, drawn.feature[place] - mine.start))
        return parts

    def _rows(self, source, part):
        targets = np.arange(self.n_targets[source]) if self.of_source else np.array([part.layer - source])
        return (part.feature[:, None] * self.n_targets[source] + targets).flatten()

    def loss(self, written):
        """The penalty as it enters the loss. written: per source layer its `module.Written`, with `taken` the decoders of `rows`."""
        some = written[0].taken
        decoders = self._decoders(written)
        weights = self._coactivation(written) if self.penalty.weight_by == "coactivation" else [None] * len(decoders)
        total = 0
        for drawn, rows, weight in zip(self.layers, decoders, weights, strict=True):
            squares = _SumOfSquares.apply(rows.unflatten(0, (-1, drawn.group_size)), weight, self.penalty.normalize)
            total = total + squares * (1 / drawn.n_compared if weight is None else drawn.n_pairs / drawn.n_compared)
        return self.penalty.coefficient * some.shape[1] * total  # the mean over the layers, times n_layers

    def _decoders(self, written):
        """Per layer of the scope the decoders of all ranks [n, width], zeros up to whole groups; gradients go to those of this rank."""
        found = [[] for _ in self.layers]
        for parts, part_of in zip(self.parts, written, strict=True):
            width = part_of.taken.shape[1] * (self.n_targets[parts[0].layer] if self.of_source else 1)
            rows = part_of.taken.view(-1, width).split([len(part.place) for part in parts])
            for part, some in zip(parts, rows, strict=True):
                found[part.layer].append((part.place, some))
        out = []
        for drawn, parts in zip(self.layers, found, strict=True):
            places, rows = (torch.cat(some) for some in zip(*parts, strict=True))
            whole = rows.new_zeros(drawn.n_places, rows.shape[1]).index_copy(0, places, rows)
            out.append(self.parallel.sum_over_shards(whole))
        return out

    @torch.no_grad()
    def _coactivation(self, written):
        """Per layer of the scope the share [group, group_size, group_size] of all its cases of two features on one token that a pair has."""
        n_tokens, device = written[0].pairs.n_tokens, written[0].taken.device
        on_token = torch.zeros(len(written), n_tokens, device=device)
        fired = [
            torch.zeros(n_tokens, drawn.n_places + 1, device=device) for drawn in self.layers
        ]  # the last: features not drawn
        for source, (parts, part_of) in enumerate(zip(self.parts, written, strict=True)):
            pairs, is_active = part_of.pairs, part_of.is_active.float()
            on_token[source].index_add_(0, pairs.token, is_active)
            for part in parts:
                columns = torch.full((pairs.n_features,), fired[part.layer].shape[1] - 1, device=device)
                columns[part.feature] = part.place
                fired[part.layer].index_put_((pairs.token, columns[pairs.feature]), is_active)
        on_token, shares = self.parallel.sum_over_shards(on_token).double(), []
        for drawn, of_layer in zip(self.layers, fired, strict=True):
            n = on_token[drawn.sources.start : drawn.sources.stop].sum(0)
            n_cases = self.parallel.data_sum((n * (n - 1)).sum())
            groups = self.parallel.sum_over_shards(of_layer[:, :-1].contiguous()).view(n_tokens, -1, drawn.group_size)
            together = self.parallel.data_sum(torch.einsum("tgi,tgj->gij", groups, groups))
            shares.append(together.double() / n_cases.clamp(min=1))
        return shares


class _SumOfSquares(torch.autograd.Function):
    """Σ weight_ij cos²(i, j) over the ordered pairs of different rows within each group, rows [group, n, width], weight [group, n, n] or None
    for ones; with normalize False dot products instead of cosines. In float32 at least. A row of zeros has the cosine 0 with every other,
    and no gradient."""

    @staticmethod
    def forward(ctx, rows, weight, normalize):
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        dots = torch.bmm(wide, wide.transpose(1, 2))
        inverse = torch.ones_like(dots[:, 0])
        if normalize:
            squares = dots.diagonal(dim1=1, dim2=2)
            inverse = torch.where(squares > torch.finfo(dots.dtype).tiny, 1 / squares, 0)
        factors = dots * inverse[:, :, None] * inverse[:, None, :]  # of j's row in the gradient of i's, but for 4
        factors = factors if weight is None else factors * weight.to(factors.dtype)
        factors.diagonal(dim1=1, dim2=2).zero_()
        of_row = (factors * dots).sum(2)
        if normalize:
            factors.diagonal(dim1=1, dim2=2).copy_(-inverse * of_row)
        ctx.save_for_backward(rows, factors)
        return of_row.sum()

    @staticmethod
    def backward(ctx, gradient):
        rows, factors = ctx.saved_tensors
        return torch.bmm((4 * gradient) * factors, rows.to(factors.dtype)).to(rows.dtype), None, None
