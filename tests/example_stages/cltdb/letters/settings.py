"""Section `letters` of a spec."""

from cltdb.engine.section import Positive, Section


class Letters(Section):
    """Which letters begin the tokens of the vocabulary."""

    top: Positive = 5
    """So many letters, the most frequent ones."""
