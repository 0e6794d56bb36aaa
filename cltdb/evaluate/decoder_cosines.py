"""How much the decoders of features overlap: |cosine| over pairs of features, beside what no dictionary can go below and what chance gives.

Two scopes. `source`: the features of one layer, each by its decoders to all its target layers in a row. `target`: the features of all layers that
write to a layer, each by its decoder to it, since they interfere in one MLP output. Where features write to their own layer alone the two are the
same. A mean is over pairs of different features, each pair once. A decoder of zeros has no direction and is left out.

- d is d_model, times the number of layers that something of the scope is written to.
- Welch bound: of n unit vectors in d dimensions the mean squared cosine is at least (n / d - 1) / (n - 1), hence the largest |cosine| at least the root
  of that. Source: Welch 1974, "Lower bounds on the maximum cross correlation of signals"; 0 where n <= d.
- Random level: independent directions, uniform on the sphere of d dimensions, in closed form. cos² of a pair has the distribution Beta(1/2, (d - 1)/2). The
  level of the maximum is the median of the largest of so many pairs, as if they were independent; they are so two by two.
- Intervals: 95 % of a Poisson bootstrap over features. In each resample a feature counts a Poisson number of times, with every pair that it is part of,
  but for the pair with itself. The interval of a maximum says how much depends on single features; it never lies above the maximum.
  Near the random level the intervals of means are conservative, up to about twice too wide: there a feature's cosine with one other says nothing of its
  cosines with the rest, so pairs vary as if they were independent, and resampling features varies them by more.
"""

from math import lgamma, log, pi
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv

SAMPLE = 1024
"""Features of a scope and layer whose pairs are looked at; of more, so many drawn at random."""
RESAMPLES = 200
TOP_SHARE, TOP_LEVEL = 0.03, 0.01
"""Of the pairs of largest |cosine|: the share that is sorted first for the 99th percentile, and what lies above it."""
MEASURES = ("mean", "mean_square", "p99", "max")


class Measured(NamedTuple):
    """A metric of a layer (None: of all). interval: (low, high), None of one that is no estimate."""

    layer: int | None
    name: str
    value: float
    interval: tuple | None = None


@torch.no_grad()
def decoder_cosines(dictionary, *, seed):
    """The `Measured` rows of a dictionary: per scope `decoder_cosine_{scope}_…`, of each layer and of all. Of all layers, a mean, mean square or 99th
    percentile is the mean of the layers', and the maximum the largest."""
    generator, layers = np.random.default_rng(seed), list(dictionary.layers)
    chosen = {layer: generator.permutation(dictionary.n_features)[:SAMPLE] for layer in layers}
    counts = {layer: generator.poisson(1.0, (RESAMPLES, len(features))) for layer, features in chosen.items()}
    source = [_overlap(dictionary, {layer: chosen[layer]}, counts, target=None) for layer in layers]
    target = source
    if any(len(dictionary.target_layers(layer)) > 1 for layer in layers):
        target = [_overlap(dictionary, _writing_to(dictionary, chosen, layer), counts, target=layer) for layer in layers]
    rows = []
    for scope, found in (("source", source), ("target", target)):
        for layer, parts in [*((layer, [one]) for layer, one in zip(layers, found, strict=True)), (None, found)]:
            parts = [part for part in parts if part is not None]
            if parts:
                rows += [row._replace(name=f"decoder_cosine_{scope}_{row.name}") for row in _rows(layer, parts)]
    return rows


def _writing_to(dictionary, chosen, target):
    """{source layer: features}, about SAMPLE of those that write to a layer, equally many of each source."""
    sources = [layer for layer in chosen if target in dictionary.target_layers(layer)]
    return {layer: chosen[layer][: max(1, SAMPLE // len(sources))] for layer in sources}


class Overlap(NamedTuple):
    """Of one scope and layer. values {measure: number}, resampled {measure: [RESAMPLES]}; n_features: of the scope, n_pairs: looked at, d: dimensions."""

    values: dict
    resampled: dict
    n_features: int
    n_pairs: int
    d: int


def _overlap(dictionary, features, counts, *, target):
    """The `Overlap` of features {source layer: indices}; target: of their decoders to this layer, None: to all. None where fewer than two have one."""
    gram, width = 0.0, 0
    for place in [target] if target is not None else dictionary.target_layers(*features):
        parts = [
            dictionary.decoder(layer, torch.from_numpy(chosen), slice(place - layer, place - layer + 1)).flatten(1).float()
            for layer, chosen in features.items()
        ]
        rows = torch.cat(parts)
        if rows.any():  # the directions have no dimensions where nothing is written
            gram, width = gram + rows @ rows.T, width + rows.shape[1]
    if not width:
        return None
    norms = gram.diagonal().sqrt()
    there = norms > 0
    cosines = (gram[there][:, there] / norms[there, None] / norms[there]).abs().clamp(max=1).cpu().numpy()
    if len(cosines) < 2:
        return None
    weights = np.concatenate([counts[layer][:, : len(chosen)] for layer, chosen in features.items()], axis=1)[
        :, there.cpu().numpy()
    ]
    share = len(cosines) / len(norms)
    n_features = round(share * dictionary.n_features * len(features))
    return Overlap(*measures(cosines, weights.astype(np.float32)), n_features, len(cosines) * (len(cosines) - 1) // 2, width)


def measures(cosines, counts):
    """({measure: value}, {measure: values of the resamples}) of |cosines| [n, n] over the pairs of different features, each once; counts [resample, n]: how
    often each feature counts. NaN of a resample without pairs."""
    n = len(cosines)
    once, matrices = np.ones((1, n), dtype=np.float32), {"mean": cosines, "mean_square": cosines * cosines}
    found = [
        {name: _mean(matrix, weights) for name, matrix in matrices.items()} | _tail(cosines, weights)
        for weights in (once, counts)
    ]
    return {name: float(values[0]) for name, values in found[0].items()}, found[1]


def _n_pairs(weights):
    return (weights.sum(1, dtype=np.float64) ** 2 - np.square(weights).sum(1, dtype=np.float64)) / 2


def _mean(matrix, weights):
    """The mean over pairs of different features [resample], of a symmetric matrix [n, n]; weights [resample, n]."""
    sums = np.einsum("bn,bn->b", weights @ matrix, weights, dtype=np.float64) - np.square(weights) @ matrix.diagonal()
    n_pairs = _n_pairs(weights)
    return np.divide(sums / 2, n_pairs, where=n_pairs > 0, out=np.full(len(sums), np.nan))


def _tail(cosines, weights):
    """{p99: the largest value above which at most 1 % of the pairs lie, max} [resample]; weights [resample, n]."""
    pairs, total = np.triu(cosines, 1).ravel(), _n_pairs(weights)
    n_pairs = len(cosines) * (len(cosines) - 1) // 2
    n_ranked = min(n_pairs, 100 + int(n_pairs * TOP_SHARE))
    while True:  # the pairs of largest cosine, until they hold 1 % of the weight of each resample
        top = np.argpartition(-pairs, n_ranked - 1)[:n_ranked]
        top = top[np.argsort(-pairs[top])]
        first, second = np.divmod(top, len(cosines))
        above = np.cumsum(weights[:, first] * weights[:, second], axis=1)  # whole numbers, exact in float32
        if n_ranked == n_pairs or (above[:, -1] > TOP_LEVEL * total).all():
            break
        n_ranked = min(n_pairs, 4 * n_ranked)
    found = {}
    for name, level in (("p99", TOP_LEVEL), ("max", 0.0)):
        place = [np.searchsorted(row, level * of, side="right") for row, of in zip(above, total, strict=True)]
        found[name] = np.where(total > 0, pairs[top[np.minimum(place, n_ranked - 1)]], np.nan)
    return found


def _rows(layer, parts):
    """The `Measured` rows of the `Overlap`s of some layers together."""
    together = {name: np.mean for name in MEASURES} | {"max": np.max}
    for name in MEASURES:
        value = together[name]([part.values[name] for part in parts])
        resampled = together[name]([part.resampled[name] for part in parts], axis=0)
        low, high = np.nanquantile(resampled, (0.025, 0.975)) if np.isfinite(resampled).any() else (value, value)
        yield Measured(layer, name, float(value), (float(low), float(high)))
    random = [random_level(part.d) for part in parts]
    for name in ("mean", "mean_square", "p99"):
        yield Measured(layer, f"random_{name}", float(np.mean([level[name] for level in random])))
    yield Measured(layer, "random_max", random_maximum([(part.n_pairs, part.d) for part in parts]))
    bound = float(np.mean([welch(part.n_features, part.d) for part in parts]))
    yield Measured(layer, "welch_mean_square", bound)
    if layer is not None:
        yield Measured(layer, "welch_rms", bound**0.5)


def welch(n, d):
    """The least mean squared cosine over pairs of n unit vectors in d dimensions."""
    return max(0.0, (n / d - 1) / (n - 1))


def random_level(d):
    """{measure: of |cosine| between two independent directions in d dimensions}."""
    if d == 1:
        return {"mean": 1.0, "mean_square": 1.0, "p99": 1.0}
    mean = np.exp(lgamma(d / 2) - lgamma((d + 1) / 2)) / pi**0.5
    return {"mean": mean, "mean_square": 1 / d, "p99": betaincinv(0.5, (d - 1) / 2, 1 - TOP_LEVEL) ** 0.5}


def random_maximum(groups):
    """The median of the largest |cosine| among pairs of independent directions; groups: (number of pairs, dimensions)."""
    if any(d == 1 for _, d in groups):
        return 1.0

    def excess(x):
        """log P(all <= x) - log(1/2)."""
        return sum(n * np.log(max(betainc(0.5, (d - 1) / 2, x * x), 1e-300)) for n, d in groups) - log(0.5)

    return float(brentq(excess, 0.0, 1.0))
