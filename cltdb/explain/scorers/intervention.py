"""Intervention: does setting the feature bring what its text of side output says? Of five lists of tokens, which rose most when the feature was set?
The other lists are what setting other features of the layer raises. Score: accuracy; guessing gets 0.2.
Source: intervention scoring of Paulo et al. (2024), here as a choice."""

from cltdb.explain.scorers.groups import N_CHOICES, among_others
from cltdb.explain.scorers.trials import accuracy
from cltdb.explain.subjects import padded

METHODS, CHANCE = {"output": "choose_tokens"}, 1 / N_CHOICES
OF_FEATURE = False
measure = accuracy


def prepare(subjects):
    """Measures what setting the features of a block raises, in few passes of the model."""
    everything, by_layer = subjects[0].all, {}
    for subject in subjects:
        by_layer.setdefault(subject.layer, []).append(subject.feature)
    for layer, features in by_layer.items():
        everything.raised(layer, [*features, *everything.compared(layer)])


def trial(subject, side, rng):
    """Lists of the tokens that rose most."""
    raised = subject.all.raised(subject.layer, [subject.feature, *subject.all.compared(subject.layer)])
    own = raised.pop(subject.feature)
    return among_others(own, padded(list(raised.values())), rng, purpose="intervention")
