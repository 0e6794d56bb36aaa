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
error: up to the units of the decoders, which are those of training here, `normalize: false` with a coefficient of C(n, 2) times theirs. So theirs
changes its meaning with n, and smaller decoders satisfy it as well as orthogonal ones do, while activations grow. Their logged mean divides the
sum over i < j by all n² pairs and is half the mean; here sums over both orders are divided by the number of both orders.
"""

from typing import NamedTuple

import numpy as np
import torch

GROUP = 128
"""Features of which all pairs are compared."""


class Drawn(NamedTuple):
    """What was drawn of a layer of the scope: its source layers, first to last; number [n]: which of their features, source layer after source
    layer, in groups of group_size, the last one perhaps smaller; first: its first group among those of all layers; how many (ordered) pairs
    are compared, and there are."""

    sources: range
    number: np.ndarray
    group_size: int
    first: int
    n_compared: int
    n_pairs: int

    @property
    def stop(self):
        """Its last group and one."""
        return self.first + -(-len(self.number) // self.group_size)


class Sample:
    """The decoders that one step compares: the same on every rank for the same seed, a list of integers.

    n_targets: per source layer, to how many layers it writes, its own first; a later layer writes to no more than an earlier one. penalty:
    section `train.orthogonality`. `rows`: per source layer those [n] that this rank gives of its decoders as [n_features * n_targets, d_model].

    On a GPU the penalty costs the host's time for each operation and each wait. Operations are therefore on all layers at once where this is
    possible: every group has `size` places, group g those from size * g on; some may stay empty. What depends on the draw reaches the device in
    one transfer, for which the host doesn't wait:

    rows    above
    at      per source layer: where its rows are among those that `_placed` makes
    places  [n] the places of what this rank gives, source layer after source layer
    slots   [n] their entries in [slot, source layer, feature]; slot 0 is what a feature writes to its own layer, 1 to the next
    layer   [group] its layer
    share   [group] what the weights of its pairs are multiplied with
    writes  [layer, source layer] 1 where the source layer is among the layer's, else 0"""

    def __init__(self, penalty, *, n_features, n_targets, seed, parallel, device):
        self.penalty, self.n_targets, self.parallel = penalty, n_targets, parallel
        self.layers = []
        for layer in range(len(n_targets)):
            self.layers.append(self._drawn(layer, n_features, seed))
        self.size, self.n_groups = max(drawn.group_size for drawn in self.layers), self.layers[-1].stop
        mine = parallel.features(n_features)
        width = mine.stop - mine.start
        layer = np.repeat(np.arange(len(n_targets)), [len(drawn.number) for drawn in self.layers])
        nth = np.concatenate([np.arange(len(drawn.number)) for drawn in self.layers])
        first, group_size, start = np.array([(one.first, one.group_size, one.sources.start) for one in self.layers]).T
        group, within = np.divmod(nth, group_size[layer])
        place = (first[layer] + group) * self.size + within
        source, feature = np.divmod(np.concatenate([drawn.number for drawn in self.layers]), n_features)
        source += start[layer]
        is_mine = (feature >= mine.start) & (feature < mine.stop)
        order = np.flatnonzero(is_mine)[np.argsort(source[is_mine], kind="stable")]
        layer, nth, place, source, feature = (some[order] for some in (layer, nth, place, source, feature))
        feature -= mine.start
        ends = np.searchsorted(source, np.arange(1, len(n_targets)))
        at = np.split(nth if self.of_source else place, ends)
        rows = []
        for n, features, slot in zip(n_targets, np.split(feature, ends), np.split(layer - source, ends), strict=True):
            rows.append((features[:, None] * n + (np.arange(n) if self.of_source else slot[:, None])).flatten())
        slots = ((layer - source) * len(n_targets) + source) * width + feature
        layers = np.repeat(np.arange(len(n_targets)), [one.stop - one.first for one in self.layers])
        one_by_one = penalty.weight_by == "none"
        share = np.array([(1 if one_by_one else one.n_pairs) / one.n_compared for one in self.layers])[layers]
        writes = np.array([[source in one.sources for source in range(len(n_targets))] for one in self.layers], dtype=np.float64)
        numbers = [*rows, *at, place, slots, layers, share.view(np.int64), writes.flatten().view(np.int64)]
        moved = _moved(np.concatenate(numbers), device).split(list(map(len, numbers)))
        self.rows, self.at = moved[: len(n_targets)], moved[len(n_targets) : 2 * len(n_targets)]
        self.places, self.slots, self.layer, share, writes = moved[2 * len(n_targets) :]
        self.share, self.writes = share.view(torch.float64), writes.view(torch.float64).view(len(n_targets), -1)

    of_source = property(lambda self: self.penalty.scope == "source")

    def _drawn(self, layer, n_features, seed):
        writing = [source for source in range(layer + 1) if layer - source < self.n_targets[source]]
        sources = range(layer if self.of_source else writing[0], layer + 1)
        n_all = len(sources) * n_features
        n = min(n_all, max(2, self.penalty.sample // (self.n_targets[layer] if self.of_source else 1)))
        number = np.random.default_rng([*seed, layer]).choice(n_all, n, replace=False)
        group_size = -(-n // -(-n // GROUP))
        n_full, rest = divmod(n, group_size)
        n_compared = n_full * group_size * (group_size - 1) + rest * (rest - 1)
        first = self.layers[-1].stop if self.layers else 0
        return Drawn(sources, number, group_size, first, n_compared, n_all * (n_all - 1))

    def loss(self, written):
        """The penalty as it enters the loss. written: per source layer its `module.Written`, with `taken` the decoders of `rows`."""
        weight, taken = self._weight(written), [part.taken for part in written]
        scale = self.penalty.coefficient * taken[0].shape[1]  # of the mean over the layers, times n_layers
        return scale * _SumOfSquares.apply(self, weight, *taken)

    def decoders(self, taken):
        """Those of all ranks in groups of equal width, as (the first of these groups, rows [group, n, width]), in float32 at least. Empty
        places are zeros."""
        if not self.of_source:
            yield 0, self._placed(taken, self.at, self.n_groups, self.size)
            return
        for n, drawn, rows, at in zip(self.n_targets, self.layers, taken, self.at, strict=True):
            yield drawn.first, self._placed([rows.view(-1, n * rows.shape[1])], [at], drawn.stop - drawn.first, drawn.group_size)

    def _placed(self, taken, at, n_groups, size):
        """The rows `taken` [n, width], those of all ranks, `at` their places in groups [n_groups, size, width]."""
        if self.parallel.n_shards == len(taken) == 1 and len(taken[0]) == n_groups * size:
            placed = taken[0]  # all of them, in order
        else:
            placed = taken[0].new_zeros(n_groups * size, taken[0].shape[1])
            for place, rows in zip(at, taken, strict=True):
                placed.index_copy_(0, place, rows)
            placed = self.parallel.sum_over_shards(placed)
        return placed.view(n_groups, size, -1).to(torch.promote_types(placed.dtype, torch.float32))

    def taken_of(self, decoders, dtype):
        """The inverse of `decoders`: per source layer, of tensors as its rows, what is in the places of this rank's `taken`."""
        if not self.of_source:
            return decoders[0].flatten(0, 1).to(dtype).index_select(0, self.places).split(list(map(len, self.at)))
        taken = []
        for n, rows, at in zip(self.n_targets, decoders, self.at, strict=True):
            rows = rows.flatten(0, 1)
            mine = rows if len(at) == len(rows) else rows.index_select(0, at)
            taken.append(mine.to(dtype).view(len(at) * n, rows.shape[1] // n))
        return taken

    @torch.no_grad()
    def _weight(self, written):
        """What each cos² is multiplied with, in float64: [group, 1, 1], with coactivation [group, size, size]."""
        if self.penalty.weight_by == "none":
            return self.share[:, None, None]
        fired, cases = self._fired([part.pairs for part in written], torch.cat([part.is_active for part in written]).float())
        groups = fired.view(self.n_groups, self.size, -1)
        together = self.parallel.data_sum(torch.bmm(groups, groups.mT))
        return together * (self.share / cases.clamp(min=1)[self.layer])[:, None, None]

    def _fired(self, pairs, is_active):
        """(whether the feature of a place fires [place, token]; per layer of the scope the cases of two features on one token, of all ranks).
        pairs: per source layer; is_active [n_pairs], 0 or 1, of them all."""
        n_layers, n_tokens, n_features = len(pairs), pairs[0].n_tokens, pairs[0].n_features
        token = torch.cat([part.token for part in pairs])
        row = torch.cat(torch._foreach_add([part.token for part in pairs], [n * n_tokens for n in range(n_layers)]))
        feature = torch.cat(torch._foreach_add([part.feature for part in pairs], [n * n_features for n in range(n_layers)]))
        on_token = is_active.new_zeros(n_layers * n_tokens).index_add_(0, row, is_active).view(n_layers, n_tokens)
        n_slots, n_places = 1 if self.of_source else self.n_targets[0], self.n_groups * self.size
        place = torch.full((n_slots, n_layers * n_features), n_places, device=row.device)  # one after the last: not drawn
        place.view(-1).index_copy_(0, self.slots, self.places)
        fired = is_active.new_zeros(n_places + 1, n_tokens)
        for slot, of_slot in enumerate(place):
            stop = sum(len(part) for part, n in zip(pairs, self.n_targets, strict=True) if n > slot)
            fired.index_put_((of_slot[feature[:stop]], token[:stop]), is_active[:stop])
        n = self.writes @ self.parallel.sum_over_shards(on_token).double()
        return self.parallel.sum_over_shards(fired[:-1]), self.parallel.data_sum((n * (n - 1)).sum(1))


def _moved(numbers, device):
    """A numpy array as a tensor on the device; the host doesn't wait for it."""
    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor.to(device)


class _SumOfSquares(torch.autograd.Function):
    """Σ weight_ij cos²(i, j) over the ordered pairs of different rows within each group of a `Sample`, weight [group, size, size] or
    [group, 1, 1]; with `normalize: false` dot products instead of cosines. In float32 at least. A row of zeros has the cosine 0 with every other,
    and no gradient."""

    @staticmethod
    def forward(ctx, sample, weight, *taken):
        decoders = list(sample.decoders(taken))
        dots = decoders[0][1].new_zeros(sample.n_groups, sample.size, sample.size)
        for first, rows in decoders:
            _of_groups(dots, first, rows).baddbmm_(rows, rows.mT, beta=0)
        factors = dots * weight.to(dots.dtype)  # of j's row in the gradient of i's, but for 4
        if sample.penalty.normalize:
            squares = dots.diagonal(dim1=1, dim2=2)
            inverse = torch.where(squares > torch.finfo(dots.dtype).tiny, 1 / squares, 0)
            factors.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])
        factors.diagonal(dim1=1, dim2=2).zero_()
        of_row = (factors * dots).sum(2)
        if sample.penalty.normalize:
            factors.diagonal(dim1=1, dim2=2).copy_(-inverse * of_row)
        ctx.sample, ctx.dtype, ctx.firsts = sample, taken[0].dtype, [first for first, _ in decoders]
        ctx.save_for_backward(factors, *(rows for _, rows in decoders))
        return of_row.sum()

    @staticmethod
    def backward(ctx, gradient):
        factors, *decoders = ctx.saved_tensors
        factors = (4 * gradient) * factors
        gradients = [torch.bmm(_of_groups(factors, first, rows), rows) for first, rows in zip(ctx.firsts, decoders, strict=True)]
        return None, None, *ctx.sample.taken_of(gradients, ctx.dtype)


def _of_groups(pairs, first, rows):
    """The part [group, n, n] of pairs [group, size, size] that belongs to rows [group, n, width], of which `first` is the first group."""
    n_groups, n, _ = rows.shape
    return pairs[first : first + n_groups, :n, :n]
