"""Section `rescaled` of a spec."""

from cltdb.engine.section import PositiveNumber, Section


class Rescaled(Section):
    """The model with its final norm multiplied, and so its logits (GPT-2)."""

    factor: PositiveNumber = 2.0
    """What it is multiplied by."""
