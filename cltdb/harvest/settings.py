"""Section `harvest` of a spec."""

import re
from typing import Annotated

from pydantic import Field, model_validator

from cltdb.activations.settings import TextSource
from cltdb.engine.section import Added, Conflict, Expected, Launch, Neutral, Section, Sequences, Tokens, whole

Contexts = whole(0, 10_000, "more do not fit into memory")


class PullbackOverlap(Section):
    features: whole(1, 10_000, "more do not fit into memory") = 100
    """Features per layer, drawn from those that fire."""
    tokens: Tokens = 20_000
    """Tokens of text, in random sequences, over which contributions are averaged. Time grows with the tokens, the heads, the features of a layer
    and the cube of the layers."""


class Harvest(Section):
    """Where features fire: contexts, statistics, edges."""

    text: Annotated[list[TextSource], Field(min_length=1)] | None = None
    """Text to read, all of its documents; default the activations' text without its held-out documents, as where the two are the same."""
    tokens: Tokens = 1_000_000
    """Tokens to read; fewer than 200,000 are too few to call a feature dead."""
    top: whole(1, 10_000, "more do not fit into memory") = 20
    """Contexts of highest activation per feature."""
    per_quantile: whole(1, 10_000, "more do not fit into memory") = 5
    """Contexts sampled per quantile of a feature's activations."""
    n_quantiles: whole(1, 1_000, "more do not fit into memory") = 5
    """Quantiles; the highest is the last."""
    window: whole(2, 65_536, "more do not fit into memory") = 32
    """Tokens per context; a window never crosses documents."""
    pool_windows: whole(1, 10**7, "more do not fit into memory") = 4000
    """Random windows kept with all their activations: negatives for scoring."""
    feature_edges: Contexts = 10
    """Edges to features of other layers that are kept per feature and direction: this many of the strongest by |TWERA|, and half
    as many, rounded up, by |virtual weight| alone. A feature that never fires has none. 0: none."""
    head_edges: Annotated[Contexts, Added] = 0
    """Edges through one attention head (its OV circuit, by weights alone) that are kept per target feature, the strongest. Time grows with
    the heads, the square of the features and the cube of the layers."""
    input_edges: Annotated[Contexts, Added] = 0
    """Edges from inputs that are kept per feature, by weights alone, the strongest: this many from tokens through one attention head each,
    and as many from learned positions, directly or through one head. Time grows with the features, the vocabulary and the heads."""
    lens_tokens: Annotated[str | list[str], Expected("a list of tokens (quoted), or a regular expression"), Added] = []
    """Tokens whose logits are stored of every feature: what it writes to them directly (query `feature_lens`). A list of texts as in table
    vocabulary, or a regular expression that the whole text matches, such as `"[0-9]{2}"`. At most 1,000; a feature takes about 5 bytes
    per token."""
    pullback_overlap: Annotated[PullbackOverlap | None, Added] = None
    """Table pullback_overlaps: how well weights alone say which earlier features drive a feature where it fires. `pullback_overlap: {}` takes
    the defaults."""
    coactivation_tokens: Tokens = 200_000
    """Ordinary tokens, drawn uniformly, over which co-activation is summed exactly. Until the pass ends this takes 12 bytes of
    disk for each firing of a feature at one of them. Time grows with the tokens times the square of the features active per
    token."""
    batch_seqs: Annotated[Sequences, Neutral] = 16
    """Sequences per forward pass."""
    launch: Annotated[Launch, Neutral] = Launch()
    """Processes that share the text; at most 32 are of use, and no more than there are batches."""

    @model_validator(mode="after")
    def _expression(self):
        try:
            re.compile(self.lens_tokens if isinstance(self.lens_tokens, str) else "")
        except re.error as error:
            found = f"expected a regular expression, found {self.lens_tokens!r} ({error})"
            raise Conflict(found, "lens_tokens") from error
        return self
