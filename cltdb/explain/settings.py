"""Section `explain` of a spec."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cltdb.engine.section import Added, Conflict, Expected, Neutral, Positive, Section, Word, real, whole

Pair = Annotated[
    list[whole(0, 10**9, "no dictionary is larger")], Field(min_length=2, max_length=2), Expected("[layer, feature]")
]
Pairs = Annotated[list[Pair], Field(min_length=1), Expected("one feature or more, as [[layer, feature], …]")]


class Features(Section):
    top_by: Literal["density", "max_activation", "layer"] = "density"
    """Order in which features are explained."""
    limit: Positive | None = None
    """At most this many features; default all live ones."""
    only: Annotated[Pairs | None, Added] = None
    """Only these features, as [[layer, feature], …], whether they are live or not; `cltdb explain` sets it."""

    @model_validator(mode="after")
    def _each_once(self):
        if self.only and len(set(map(tuple, self.only))) < len(self.only):
            raise Conflict("expected each feature once, found one twice", "only")
        return self


class Explain(Section):
    """What features mean, in words with scores."""

    model: Word = "cltdb-rules/v1"
    """A litellm model, or `cltdb-rules/v1`: deterministic rules, no network, no language model."""
    features: Features = Features()
    """Which features."""
    scorers: Annotated[list[Literal["detection", "fuzzing"]], Field(min_length=1)] = ["detection", "fuzzing"]
    """How explanations are scored."""
    max_cost_usd: Annotated[real(0, 10**6, "US dollars") | None, Neutral] = None
    """Budget for the replies that this artifact has to ask for; replies that are there cost nothing. What the budget does not pay
    for gets the status skipped_budget, or a score of NULL. With a larger budget `--force explain` does the rest."""

    @model_validator(mode="after")
    def _each_once(self):
        if len(set(self.scorers)) < len(self.scorers):
            raise ValueError(f"expected each scorer once, found {', '.join(self.scorers)}")
        return self
