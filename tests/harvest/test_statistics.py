"""Running statistics against numpy on all activations at once."""

import numpy as np
import pytest
from slow_harvest import slow_bins

from cltdb.harvest import statistics


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_statistics_do_not_depend_on_the_order_and_equal_numpy(scale):
    """Log-normal over many octaves; in order, backwards, and merged from parts whose maxima lie octaves apart."""
    rng = np.random.default_rng(0)
    n, n_features = 20_000, 3
    activation, feature = np.exp(2.5 * rng.standard_normal(n)).astype(np.float32) * np.float32(scale), rng.integers(0, 3, n)
    order = np.argsort(activation)
    made = []
    for rows, cuts in ((np.arange(n), 1), (order, 7), (order[::-1], 2), (order, 1)):
        whole = statistics.RunningStatistics(n_features + 1)
        for part in np.array_split(rows, cuts):
            one = statistics.RunningStatistics(n_features + 1)
            for batch in np.array_split(part, 5):
                one.add(feature[batch], activation[batch])
            whole.absorb(one.columns())
        made.append(whole)
    for other in made[1:]:
        assert all(np.array_equal(column, made[0].columns()[name]) for name, column in other.columns().items())
    bins, quantiles = [dict() for _ in range(n_features + 1)], made[0].quantiles(statistics.QUANTILES)
    for number, low, count in zip(*made[0].bins(), strict=True):
        bins[number][float(low)] = int(count)
    for number in range(n_features):
        a = activation[feature == number]
        assert made[0].count[number] == len(a) and bins[number] == slow_bins(a)
        assert np.allclose([made[0].mean[number], made[0].std[number]], [a.mean(dtype=float), a.std(dtype=float)], rtol=1e-12)
        assert np.allclose(quantiles[number], np.quantile(a, statistics.QUANTILES), rtol=0.1, atol=a.max() / 2**6)
    assert (made[0].count[-1], made[0].mean[-1], made[0].std[-1], bins[-1]) == (0, 0, 0, {})


def test_no_quantile_lies_below_the_threshold():
    """Activations that begin in the upper part of a bin, as those of JumpReLU mostly do; a feature of one firing, and one that never fires."""
    least = np.array([1.2, 18.7, 3.4, 2.0], dtype=np.float32)
    one, drawn = statistics.RunningStatistics(4), np.random.default_rng(0).exponential(size=20_000)
    a = [
        (least[0] + 0.2 * drawn).astype(np.float32),
        (least[1] + 2 * drawn).astype(np.float32),
        np.array([3.45], dtype=np.float32),
    ]
    one.add(np.repeat(np.arange(3), [len(of) for of in a]), np.concatenate(a))
    quantiles = one.quantiles(statistics.QUANTILES, least=least)
    for found, of in zip(quantiles, a, strict=False):
        assert np.allclose(found, np.quantile(of, statistics.QUANTILES), rtol=0.07)
    assert (quantiles[:3] >= least[:3, None]).all() and np.isnan(quantiles[3]).all()
    assert (one.quantiles(statistics.QUANTILES)[:2, 0] < least[:2]).all()
