"""How often intervals hold the share that was drawn from, counted over all that can be drawn."""

from itertools import product

import pytest
from scipy.stats import binom

from cltdb.intervals import of_mean, wilson


@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.9, 0.6), (0.97, 0.97), (0.99, 0.99), (0.02, 0.98)])
def test_the_interval_of_a_mean_of_two_shares_holds_the_true_one(n, chances):
    truth, held = sum(chances) / 2, 0.0
    for k in product(range(n + 1), repeat=2):
        low, high = of_mean(*((one, n) for one in k))
        held += binom.pmf(k, n, chances).prod() * (low <= truth <= high)
    assert held > 0.9  # of resamples 0.18 at chances of 0.99 and n 10


def test_intervals_of_all_and_of_none_have_a_width():
    assert of_mean((10, 10), (10, 10)) == pytest.approx((1 - (1 - wilson(10, 10)[0]) / 2**0.5, 1)) and wilson(10, 10)[0] < 0.73
    assert of_mean((0, 10), (0, 10)) == pytest.approx((0, wilson(0, 10)[1] / 2**0.5)) and of_mean((3, 7)) == pytest.approx(
        wilson(3, 7)
    )
