"""Section `evaluate` of a spec."""

from typing import Annotated

from pydantic import Field

from cltdb.activations.settings import TextSource
from cltdb.engine.section import Fraction, Neutral, Section, Sequences, Tokens


class Evaluate(Section):
    """How well the dictionary stands for the model."""

    text: Annotated[list[TextSource], Field(min_length=1)] | None = None
    """Text to evaluate on instead of the held-out documents of the activations' text. Documents that the dictionary was trained
    on, word for word, are left out; what a published dictionary was trained on is not known."""
    tokens: Tokens | None = None
    """Tokens to evaluate on; default all of activations.heldout_tokens."""
    dense_above: Fraction = 0.1
    """Density above which a feature counts as dense."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences per forward pass."""
