"""Section `evaluate` of a spec."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cltdb.activations.settings import TextSource
from cltdb.engine.section import Added, Expected, Fraction, Layer, Neutral, Place, Section, Sequences, Tokens, Word, real, whole
from cltdb.evaluate.splices import ALL, ALL_BUT_ENDS, SINGLE

Splice = Annotated[
    Literal[ALL, SINGLE, ALL_BUT_ENDS] | Annotated[list[Layer], Field(min_length=1)],
    Expected("all, single, all_but_ends or a list of layers"),
]


def _not_zero(value):
    if value == 0:
        raise ValueError("expected a number other than 0, which raises nothing, found 0")
    return value


Multiple = Annotated[real(-1000, 1000, "features are far from their range"), AfterValidator(_not_zero)]


def _each_once(values):
    if len(set(values)) < len(values):
        raise ValueError(f"expected each multiple once, found {values}")
    return values


class Question(Section):
    """A line of a file of facts."""

    concept: Word
    """What the fact is about, such as a country."""
    label: Word
    """How it is asked, such as a language; each concept once under each label."""
    text: Annotated[str, Field(min_length=1)]
    """The prompt; BOS is put in front."""
    target: Word
    """The right answer. Its first token counts, after a space unless it begins with one."""


class Facts(Section):
    """Facts whose concepts, such as countries, are exchanged for one another."""

    file: Place | None = None
    """A .jsonl file, one prompt per line, relative to cltdb.yaml, with `concept`, `label`, `text` and `target`, as in groups.prompts; other
    keys are left alone, and a label need not have every concept."""
    toyworld: bool = False
    """The capitals of the toy world's countries, asked in English, French and German; of a model that knows its words."""
    pairs: whole(1, 1000, "more change no digit that is shown") = 8
    """Other concepts that take the place of each, drawn."""

    @model_validator(mode="after")
    def _one_kind(self):
        if (self.file is not None) == self.toyworld:
            raise ValueError("expected exactly one of file, toyworld: true")
        return self


class Isolation(Section):
    """What else moves when one feature is raised. `isolation: {}` takes the defaults."""

    features: whole(1, 100_000, "a sample says as much") = 32
    """Features per layer, drawn among those that fire on the text."""
    multiples: Annotated[list[Multiple], Field(min_length=1), AfterValidator(_each_once)] = [1.0, 2.0, 4.0]
    """By how much a feature is raised, in multiples of the 99th percentile of its own activations above 0 on the text."""
    prompts: whole(1, 512, "each feature is raised in all of them") = 32
    """Prompts, the same for all features: beginnings of sequences of the text."""
    prompt_tokens: whole(2, 65_536, "no model reads more") = 16
    """Tokens of each, BOS included; features are raised at the last."""
    facts: Facts | None = None
    """Does a fact follow its feature? Of each concept the feature that is most its own is set to 0 in favour of another concept's."""


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
    isolation: Annotated[Isolation | None, Added] = None
    """Table isolation: what else moves when one feature is raised by a multiple of its own scale."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences per forward pass."""
