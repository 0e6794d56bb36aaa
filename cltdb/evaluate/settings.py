"""Section `evaluate` of a spec."""

from typing import Annotated, Literal

from pydantic import Field

from cltdb.activations.settings import TextSource
from cltdb.engine.section import Added, Expected, Fraction, Layer, Neutral, Section, Sequences, Tokens
from cltdb.evaluate.splices import ALL, ALL_BUT_ENDS, SINGLE

Splice = Annotated[
    Literal[ALL, SINGLE, ALL_BUT_ENDS] | Annotated[list[Layer], Field(min_length=1)],
    Expected("all, single, all_but_ends or a list of layers"),
]


class Evaluate(Section):
    """How well the dictionary stands for the model."""

    text: Annotated[list[TextSource], Field(min_length=1)] | None = None
    """Text to evaluate on instead of the held-out documents of the activations' text. Documents that the dictionary was trained
    on, word for word, are left out; what a published dictionary was trained on is not known."""
    tokens: Tokens | None = None
    """Tokens to evaluate on; default all of activations.heldout_tokens."""
    dense_above: Fraction = 0.1
    """Density above which a feature counts as dense."""
    splice: Annotated[list[Splice], Added] = []
    """Which MLPs are replaced at once, beside all of them: `single` (each alone), `all_but_ends` (all but the first and the last), or a list
    of layers. For each: cross-entropy, KL and agreement, beside zero and mean ablation of the same MLPs."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences per forward pass."""
