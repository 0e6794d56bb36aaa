"""How often intervals hold the share that was drawn from, counted over all that can be drawn."""

from itertools import product

import numpy as np
import pytest

from cltdb.intervals import of_mean, of_values, wilson


@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.9, 0.6), (0.97, 0.97), (0.99, 0.99), (0.02, 0.98)])
def test_the_interval_of_a_mean_of_two_shares_holds_the_true_one(n, chances):
    from scipy.stats import binom  # takes a second, and all processes read this file

    truth, held = sum(chances) / 2, 0.0
    chance_of = binom.pmf(np.arange(n + 1)[:, None], n, chances)  # of each count, for both
    for k in product(range(n + 1), repeat=2):
        low, high = of_mean(*((one, n) for one in k))
        held += chance_of[k, (0, 1)].prod() * (low <= truth <= high)
    assert held > 0.9  # of resamples 0.18 at chances of 0.99 and n 10


def test_intervals_of_all_and_of_none_have_a_width():
    assert of_mean((10, 10), (10, 10)) == pytest.approx((1 - (1 - wilson(10, 10)[0]) / 2**0.5, 1)) and wilson(10, 10)[0] < 0.73
    assert of_mean((0, 10), (0, 10)) == pytest.approx((0, wilson(0, 10)[1] / 2**0.5)) and of_mean((3, 7)) == pytest.approx(
        wilson(3, 7)
    )


def test_the_interval_of_a_mean_of_scores_is_that_of_a_bootstrap_where_they_vary_and_has_a_width_where_they_do_not():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 11, 80) / 10
    plain = np.quantile(generator.choice(scores, (4000, 80)).mean(axis=1), (0.025, 0.975))
    assert of_values(scores.tolist(), 800) == pytest.approx(plain, abs=0.012)
    assert of_values((2 * scores - 1).tolist(), 800, least=-1) == pytest.approx(2 * plain - 1, abs=0.024)
    assert (
        of_values([1.0] * 7, 70) == wilson(6, 6) and of_values([0.5] * 7, 70) == wilson(35, 70) and of_values([1.0], 10) is None
    )


@pytest.mark.parametrize("chance", [0.5, 0.9, 0.99])
def test_the_interval_of_a_mean_of_scores_holds_the_true_one(chance):
    """Scores of 12 features, each of 10 windows."""
    drawn = np.random.default_rng(1).binomial(10, chance, (400, 12)) / 10
    held = [low <= chance <= high for low, high in (of_values(row.tolist(), 120) for row in drawn)]
    assert np.mean(held) > 0.9
