"""The model's MLP neurons, made as sparse as the trained dictionary: a neuron fires where its value exceeds a threshold, one per layer, that
gives the dictionary's L0.

This leaves out the small values of neurons, which the model uses and which are the harder ones to explain. It asks more of the dictionary
than `neurons` does: are its features easier to explain than the peaks of neurons?
"""

from functools import partial

from cltdb.explain.baselines import neurons
from cltdb.explain.baselines.sample import cuts


def identity(wanted, seed):
    """What the dictionary is made of, beside model and text, as JSON values; no chance is part of it."""
    return [wanted.n_units, sorted(wanted.l0.items())]


def make(lm, wanted, text, *, seed):
    """The `Made` of the neurons. Where fewer values than wanted are above zero, L0 is lower."""
    found = cuts(text, partial(neurons.values, lm), wanted.l0)
    return neurons.above(lm, wanted, text, {layer: max(cut, 0.0) for layer, cut in found.items()})
