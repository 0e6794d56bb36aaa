"""Intervals of the studies."""

import numpy as np
from scipy.stats import t as student


def interval(values):
    """(mean, lower end, upper end) of 95 % over seeds, Student's t; the ends are nan of one seed."""
    values = np.asarray(values, dtype=float)
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)
