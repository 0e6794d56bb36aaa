"""Section `groups` of a spec."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cltdb.activations.settings import TextSource
from cltdb.engine.section import (
    Added,
    Conflict,
    Fraction,
    Layer,
    Name,
    Neutral,
    Place,
    Positive,
    Section,
    Sequences,
    Tokens,
    real,
    whole,
)

TRACES = "traces"
"""The kind of the units of a prompt."""
SUBSTITUTIONS = "substitutions"
"""The kind of the units of a pair of labels."""


class ParallelPrompts(Section):
    file: Place | None = None
    """A .jsonl file, one prompt per line, relative to cltdb.yaml. A line has `text`, `concept` (what is asked), a label, and where there is one as
    `target` the right next token, as `kind` the kind of question: then chance is what concepts of one kind share. Every concept stands once
    under each label."""
    toyworld: bool = False
    """The toy world's translations: capitals and opposites in English, French and German."""

    @model_validator(mode="after")
    def _one_kind(self):
        if (self.file is not None) == self.toyworld:
            raise ValueError("expected exactly one of file, toyworld: true")
        return self


class LabelFeatures(Section):
    recurrence: Fraction = 0.1
    """Least share of a label's prompts, and two of them, in which the feature is among the most influential ones."""
    influence: Fraction = 0.8
    """Share of the features' influence that the most influential ones of a prompt make up."""
    top: whole(1, 1000, "no label has so many") = 20
    """Features per label and layer that are kept, those of highest contrast."""


MULTIPLES, EXCHANGED, SHIFTED = "multiples", "exchanged", "shifted"
"""What features are set to."""
Multiple = real(-1000, 1000, "features are far from their range")


class Substitute(Section):
    features: Annotated[list[whole(1, 1000, "no label has so many")], Field(min_length=1)] = [1, 3, 10]
    """How many features of each label are set, those of highest contrast."""
    first_layer: Layer = 0
    """They are of this layer and later ones."""
    last_layer: Annotated[Layer | None, Added] = None
    """They are of this layer and earlier ones; default the model's last."""
    positions: Annotated[list[Literal["last", "all"]], Field(min_length=1)] = ["last", "all"]
    """Where they are set: from the prompt's last position on, or at all positions; with `continued: false` those of new tokens are left out."""
    values: Annotated[Literal["multiples", "exchanged", "shifted"], Added] = MULTIPLES
    """What they are set to: multiples of their range, as suppress and boost say; or exchanged: each moves by a multiple of the change that it undergoes
    where the last token of the prompt alone is that of the target label's prompt; or shifted: each moves by a multiple of the mean of this change over the
    concepts that choose, the same for all prompts. boost has these multiples, suppress none, and positions are last."""
    suppress: Annotated[list[Multiple], Field(min_length=1)] = [0.0, -1.0]
    """Values of the source label's features, in multiples of the 99th percentile of their activations on text of their own label."""
    boost: Annotated[list[Multiple], Field(min_length=1)] = [0.5, 1.0, 2.0, 4.0]
    """Values of the target label's features, in the same unit; of both labels' with `values: exchanged` or `shifted`, where 1 is the whole change."""
    random_draws: whole(1, 1000, "more change no figure that is shown") = 10
    """Draws of random features in the place of the label features. Each takes a grid of its own on the half that chooses."""
    new_tokens: whole(1, 1000, "answers are short") = 4
    """Tokens of the greedy continuation in which the answer is looked for too."""
    continued: Annotated[bool, Added] = True
    """Whether features stay set at the positions of new tokens. With false the model goes on by itself from the first of them: so it should where answers
    have several tokens, since what makes the first one would make each of them anew."""

    @model_validator(mode="after")
    def _exchanges_last_tokens(self):
        if self.values != MULTIPLES:
            beside = f"beside values: {self.values}"
            if self.positions != ["last"]:
                raise Conflict(f"expected positions: [last] {beside}", "positions")
            if self.suppress != type(self).model_fields["suppress"].default:
                raise Conflict(f"expected no suppress {beside}, whose multiples are those of boost", "suppress")
        return self

    @model_validator(mode="after")
    def _has_layers(self):
        if self.last_layer is not None and self.last_layer < self.first_layer:
            raise Conflict(f"expected first_layer or a later one as last_layer, found {self.last_layer}", "last_layer")
        return self


class Groups(Section):
    """The same questions under several labels, such as languages: which features they share, beside what chance shares."""

    prompts: ParallelPrompts
    """The prompts."""
    by: Name = "label"
    """The key of a line that holds its label. A line may have several, such as language and author."""
    resamples: whole(100, 1_000_000, "more change no digit that is shown") = 2000
    """Bootstrap resamples of the concepts; intervals hold 95 % of them."""
    max_features: Positive | None = None
    """Features of a prompt's graph whose incoming edges are computed, by influence; default all."""
    label_features: Annotated[LabelFeatures | None, Added] = None
    """Tables label_features and label_scores: features that make the answer one of its label, and how well they tell the label of text.
    `label_features: {}` takes the defaults. Takes prompts with targets, and text with the same labels."""
    substitute: Annotated[Substitute | None, Added] = None
    """Table substitutions: does the model answer under another label when label features are set? Takes label_features; `substitute: {}` takes the
    defaults."""
    text: Annotated[Annotated[list[TextSource], Field(min_length=1)] | None, Added] = None
    """Text with labels for label_features, instead of the held-out documents of the activations' text."""
    tokens: Annotated[Tokens | None, Added] = None
    """Tokens of it to read; default as many as activations.heldout_tokens."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences of text per forward pass."""

    @model_validator(mode="after")
    def _has_features(self):
        for name in ("substitute", "text", "tokens"):
            if getattr(self, name) is not None and self.label_features is None:
                raise Conflict(f"expected label_features beside {name}, found none", name)
        return self
