"""Dictionaries that nobody trained, harvested, explained and scored as the trained one is: what does training add?

A module of the table has `make(lm, wanted, text, *, seed)` -> `wanted.Made`: a dictionary for the harvest; and `identity(wanted, seed)`: what
this depends on beside model and text. wanted: `wanted.Wanted`; text: `sample.SampledText`.
"""

from cltdb.explain.baselines import neurons, sparse_neurons, untrained

BASELINE_DICTIONARIES = {"untrained": untrained, "neurons": neurons, "sparse_neurons": sparse_neurons}
"""{name in `explain.baselines`: module}."""
