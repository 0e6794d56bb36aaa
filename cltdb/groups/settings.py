"""Section `groups` of a spec."""

from pydantic import model_validator

from cltdb.engine.section import Name, Place, Positive, Section, whole

TRACES = "traces"
"""The kind of the units of a prompt."""


class ParallelPrompts(Section):
    file: Place | None = None
    """A .jsonl file, one prompt per line, relative to cltdb.yaml. A line has `text`, `concept` (what is asked), a label, and as `target` the
    right next token, where there is one. Every concept stands once under each label."""
    toyworld: bool = False
    """The toy world's translations: capitals and opposites in English, French and German."""

    @model_validator(mode="after")
    def _one_kind(self):
        if (self.file is not None) == self.toyworld:
            raise ValueError("expected exactly one of file, toyworld: true")
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
