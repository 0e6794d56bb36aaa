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

from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch

GROUP = 128
"""Features of which all pairs are compared."""


class Drawn(NamedTuple):
    """What was drawn of a layer of the scope: its source layers, first to last; number [n]: which of their features, source layer after source
    layer, in groups of group_size; first: its first place among those of all layers; how many (ordered) pairs are compared, and there are."""

    sources: range
    number: np.ndarray
    group_size: int
    first: int
    n_compared: int
    n_pairs: int

    @property
    def stop(self):
        """Its last place and one, the last group filled up."""
        return self.first + -(-len(self.number) // self.group_size) * self.group_size


class Sample:
    """The decoders that one step compares: the same on every rank for the same seed, a list of integers.

    n_targets: per source layer, to how many layers it writes, its own first. penalty: section `train.orthogonality`. `rows`: per source
    layer those [n] that this rank gives of its decoders as [n_features * n_targets, d_model], on the device; `places`: the places [n] among
    those drawn of all layers of the features that have them; `slots`: which of the rank's they are, of n_slots for each layer of the scope
    that a feature may have been drawn of."""

    def __init__(self, penalty, *, n_features, n_targets, seed, parallel, device):
        self.penalty, self.n_targets, self.parallel = penalty, n_targets, parallel
        self.layers = []
        for layer in range(len(n_targets)):
            self.layers.append(self._drawn(layer, n_features, seed))
        mine = parallel.features(n_features)
        layer = np.repeat(np.arange(len(n_targets)), [len(drawn.number) for drawn in self.layers])
        place = np.concatenate([drawn.first + np.arange(len(drawn.number)) for drawn in self.layers])
        source, feature = np.divmod(np.concatenate([drawn.number for drawn in self.layers]), n_features)
        source += np.array([drawn.sources.start for drawn in self.layers])[layer]
        is_mine = (feature >= mine.start) & (feature < mine.stop)
        order = np.flatnonzero(is_mine)[np.argsort(source[is_mine], kind="stable")]
        ends = np.searchsorted(source[order], np.arange(1, len(n_targets)))
        places, features, layers = (np.split(some[order], ends) for some in (place, feature - mine.start, layer))
        width = mine.stop - mine.start
        rows = []
        for number, n in enumerate(n_targets):
            targets = np.arange(n)[None] if self.of_source else (layers[number] - number)[:, None]
            rows.append((features[number][:, None] * n + targets).flatten())
        slots = [(some - n) * width + feature for n, (some, feature) in enumerate(zip(layers, features, strict=True))]
        numbers = [*rows, *places, *slots]
        moved = torch.from_numpy(np.concatenate(numbers)).to(device).split(list(map(len, numbers)))
        n = len(n_targets)
        self.rows, self.places, self.slots = moved[:n], moved[n : 2 * n], moved[2 * n :]

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
        total, fired = 0, self._fired(written) if self.penalty.weight_by == "coactivation" else None
        for run, rows in self._decoders(written):
            groups = rows.unflatten(0, (-1, self.layers[run[0]].group_size))
            total = total + _SumOfSquares.apply(groups, self._weights(run, rows.device, fired), self.penalty.normalize)
        return self.penalty.coefficient * written[0].taken.shape[1] * total  # the mean over the layers, times n_layers

    def _decoders(self, written):
        """(layers of the scope whose groups have one size and width, their decoders [place, width] of all ranks) for every such run; gradients
        go to those of this rank."""
        n_targets = self.n_targets if self.of_source else [1] * len(self.n_targets)
        kinds = [(n, drawn.group_size) for n, drawn in zip(n_targets, self.layers, strict=True)]
        runs = [list(run) for _, run in groupby(range(len(kinds)), key=kinds.__getitem__)]
        whole = None if self.of_source else self._placed(written, range(len(written)), width=1)
        for run in runs:
            first, stop = self.layers[run[0]].first, self.layers[run[-1]].stop
            yield run, self._placed(written, run, width=n_targets[run[0]]) if whole is None else whole[first:stop]

    def _placed(self, written, sources, *, width):
        """[place, width * d_model]: what source layers give to the layers of these numbers, zeros where nothing was drawn."""
        first, stop = self.layers[sources[0]].first, self.layers[sources[-1]].stop
        rows = [written[source].taken.unflatten(0, (-1, width)).flatten(1) for source in sources]
        return self.parallel.sum_over_shards(
            _Placed.apply([self.places[source] - first for source in sources], stop - first, *rows)
        )

    @torch.no_grad()
    def _fired(self, written):
        """(whether what is drawn fires [place, token], per layer of the scope the cases of two features on one token, of all ranks)."""
        n_tokens, device, n_places = written[0].pairs.n_tokens, written[0].taken.device, self.layers[-1].stop
        on_token = torch.zeros(len(written), n_tokens, device=device)
        fired = torch.zeros(n_places + 1, n_tokens, device=device)  # the last place: all that was not drawn
        for source, part in enumerate(written):
            pairs, is_active = part.pairs, part.is_active.float()
            on_token[source].index_add_(0, pairs.token, is_active)
            n_slots = 1 if self.of_source else self.n_targets[source]
            place = torch.full((n_slots * pairs.n_features,), n_places, device=device)
            place[self.slots[source]] = self.places[source]
            place = place.view(n_slots, -1)[:, pairs.feature]
            fired.index_put_((place, pairs.token.expand_as(place)), is_active.expand_as(place))
        on_token = self.parallel.sum_over_shards(on_token).double()
        n = torch.stack([on_token[drawn.sources.start : drawn.sources.stop].sum(0) for drawn in self.layers])
        return self.parallel.sum_over_shards(fired), self.parallel.data_sum((n * (n - 1)).sum(1))

    def _weights(self, run, device, fired):
        """What each cos² is multiplied with, for layers of one run [group, 1, 1], with coactivation [group, group_size, group_size]."""
        drawn = [self.layers[layer] for layer in run]
        size, first, stop = drawn[0].group_size, drawn[0].first, drawn[-1].stop
        n_groups = torch.tensor([(layer.stop - layer.first) // size for layer in drawn])
        if fired is None:
            weights = torch.tensor([1 / layer.n_compared for layer in drawn], dtype=torch.float64)
            return weights.repeat_interleave(n_groups)[:, None, None].to(device)
        share = torch.tensor([layer.n_pairs / layer.n_compared for layer in drawn], dtype=torch.float64).to(device)
        weights = (share / fired[1][run].clamp(min=1)).repeat_interleave(n_groups.to(device), output_size=(stop - first) // size)
        groups = fired[0][first:stop].unflatten(0, (-1, size))
        return self.parallel.data_sum(torch.bmm(groups, groups.transpose(1, 2))).double() * weights[:, None, None]


class _Placed(torch.autograd.Function):
    """Rows of several tensors [n, width] at their places [n] of n_places, zeros elsewhere. It is made and its gradient taken apart without copies
    between."""

    @staticmethod
    def forward(ctx, places, n_places, *parts):
        ctx.places = places
        placed = parts[0].new_zeros(n_places, parts[0].shape[1])
        for place, part in zip(places, parts, strict=True):
            placed.index_copy_(0, place, part)
        return placed

    @staticmethod
    def backward(ctx, gradient):
        return None, None, *(gradient.index_select(0, place) for place in ctx.places)


class _SumOfSquares(torch.autograd.Function):
    """Σ weight_ij cos²(i, j) over the ordered pairs of different rows within each group, rows [group, n, width], weight [group, n, n] or
    [group, 1, 1]; with normalize False dot products instead of cosines. In float32 at least. A row of zeros has the cosine 0 with every other,
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
        factors = factors * weight.to(factors.dtype)
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
