"""Section `match` of a spec."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cltdb.activations.settings import TextSource
from cltdb.engine.section import Neutral, Place, Section, Sequences, Tokens, Word, real


class Match(Section):
    """Which features of the dictionary are also in another one: of a sweep, every point is compared with the first."""

    against: Annotated[Place | None, Neutral] = None
    """The other dictionary: its dict_id, an experiment whose training is finished, or a folder with dictionary.json. Default: of a sweep, that of the
    first point."""
    across: Annotated[Word | None, Neutral] = None
    """A swept key, such as seed: each point is compared with the one that has the key's first value and all other values of its own. Default: with
    the first point of all."""
    by: Literal["decoder", "activations"] | None = None
    """How pairs are chosen: by the cosine of their decoders, or by the correlation of their activations, which takes no
    common model, only a common tokenizer. Default: decoder where the models are the same, else activations."""
    threshold: real(0, 1, "a cosine or correlation", above=True, below=True) = 0.7
    """Similarity above which two features are the same, in what became of each; shares are above 0.7 and 0.9 whatever it is."""
    correlation: bool = True
    """Whether correlations of activations are measured too where pairs are chosen by decoders; without, no text is read."""
    text: Annotated[list[TextSource], Field(min_length=1)] | None = None
    """Text to correlate activations on, instead of the held-out documents of the activations' text."""
    tokens: Tokens = 32_768
    """Tokens of it to read; of held-out ones at most as many as there are."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences of text per forward pass."""

    @model_validator(mode="after")
    def _one_reference(self):
        if self.against is not None and self.across is not None:
            raise ValueError("expected one of against, across, found both")
        if self.by == "activations" and not self.correlation:
            raise ValueError("expected correlation: true with by: activations, found false")
        return self
