"""95 % intervals of shares that have a width at 0 and at 1 too, where resampling finds none: of 10 right answers of 10 all resamples are right."""

import math

NORMAL_975 = 1.959964
"""Standard deviations of a normal distribution on either side that hold 95 %."""


def wilson(k, n):
    """(low, high) of the share k of n. Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference"."""
    share, whole = k / n, 1 + NORMAL_975**2 / n
    middle = (share + NORMAL_975**2 / (2 * n)) / whole
    reach = NORMAL_975 * math.sqrt(share * (1 - share) / n + NORMAL_975**2 / (4 * n**2)) / whole
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))


def of_mean(*counts):
    """(low, high) of the mean of independent shares, each of counts (k, n): Wilson's intervals of each, their distances from the shares added as
    standard errors are. Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10."""
    shares, intervals = [k / n for k, n in counts], [wilson(k, n) for k, n in counts]
    mean = sum(shares) / len(shares)
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, intervals, strict=True))) / len(shares)
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, intervals, strict=True))) / len(shares)
    return max(0.0, mean - below), min(1.0, mean + above)


def of_values(values, n_asked, *, least=0):
    """(low, high) of the mean of values from `least` to 1, such as the scores of features; None of fewer than two. Wilson's, where n is that at which a
    share varies as much as the mean does, and at most n_asked, how many questions all values come from. Queries have the same, such as
    explainers_compared."""
    n, width = len(values), 1 - least
    if n < 2:
        return None
    shares = [(value - least) / width for value in values]
    mean = math.fsum(shares) / n
    spread = math.fsum((share - mean) ** 2 for share in shares) / n
    alike = n - 1 if mean in (0, 1) else min(n_asked, (n - 1) * mean * (1 - mean) / spread) if spread else n_asked
    return tuple(least + width * end for end in wilson(mean * alike, alike))
