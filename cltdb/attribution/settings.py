"""Section `attribute` of a spec."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cltdb.engine.section import (
    Added,
    Count,
    Expected,
    Fraction,
    Launch,
    Name,
    Neutral,
    Place,
    Positive,
    PositiveNumber,
    Section,
    whole,
)

LOGIT_MASS, MAX_LOGITS = 0.95, 10
"""By default the likeliest logits are explained: those that make up this probability, at most this many."""
BATCH_SIZE = 128
"""Nodes per backward pass."""
Positions = whole(1, 1_048_576, "no model reads more at once")
FeaturePlace = Annotated[
    str, Field(pattern=r"^[0-9]{1,4}:[0-9]{1,9}@-?[0-9]{1,7}$"), Expected("LAYER:FEATURE@POSITION, such as 3:120@-1")
]


class Prompt(Section):
    elsewhere = dict.fromkeys(("prompt", "prompts"), "write 'text'")
    id: Name | None = None
    """Short name: letters, digits, dot, dash, underscore; default a slug of the text and a hash."""
    text: str | None = None
    """The prompt; BOS is put in front."""
    messages: list[dict[str, str]] | None = None
    """A chat instead, through the tokenizer's chat template."""
    target: (
        Annotated[
            str
            | Annotated[list[str], Field(min_length=1), Expected("one word or more")]
            | Annotated[dict[str, PositiveNumber], Field(min_length=1), Expected("one word or more, each with its weight")]
            | Annotated[dict[str, str], Field(min_length=2), Expected("a word for each of two labels or more")],
            Expected("a word (quoted, where it looks like something else), a list of them, {word: weight}, or {label: word}"),
        ]
        | None
    ) = None
    """The token whose logit is explained, or several, instead of the most probable ones. `{" Paris": 2, " Rome": 1}` gives them
    weights in influence, relative to their sum; else these are the model's probabilities. `{en: cold, fr: froid}`: beside target_label."""
    target_label: Annotated[str | None, Added] = None
    """One of the labels of target: explain its word's logit less the mean of all labels' words, what makes the answer one of this label."""
    foil: str | None = None
    """With one target: explain the difference of the two logits."""
    position: whole(-(2**20), 2**20, "no model reads more at once") | None = None
    """Where the target is read instead of the prompt's end: 1, 2, … (0 is BOS), or counted from the end where negative."""
    target_feature: FeaturePlace | None = None
    """An active feature to explain instead of logits: LAYER:FEATURE@POSITION, such as `3:120@-1`."""

    @property
    def _has_labels(self):
        return isinstance(self.target, dict) and isinstance(next(iter(self.target.values())), str)

    @model_validator(mode="after")
    def _one_kind(self):
        if (self.text is None) == (self.messages is None):
            raise ValueError("expected exactly one of text, messages")
        for message in self.messages or []:
            if not {"role", "content"} <= message.keys():
                raise ValueError(f"expected a role and a content in every message, found {message}")
        if self.messages == []:
            raise ValueError("expected one message or more, found none")
        if self.target_label is not None and (not self._has_labels or self.target_label not in self.target):
            raise ValueError("expected a target such as {en: cold, fr: froid} with the label, beside target_label")
        if self._has_labels and self.target_label is None:
            raise ValueError("expected a target_label beside a target that is {label: word}")
        if self.foil is not None and not isinstance(self.target, str):
            raise ValueError("expected one target beside the foil")
        if self.target_feature is not None and (self.target is not None or self.position is not None):
            raise ValueError("expected target_feature alone, without target, foil or position")
        if self.foil is not None and self.foil == self.target:
            raise ValueError(f"expected a foil other than the target, found {self.foil!r} twice")
        if self.text is not None and not self.text.strip():
            raise ValueError("expected a prompt with some text, found an empty prompt")
        return self


class PromptFile(Section):
    file: Place
    """A .jsonl file, one prompt per line, relative to cltdb.yaml."""


class Paths(Section):
    n: whole(1, 10_000, "more are better asked of the graph itself") = 50
    """Strongest paths to each target."""
    max_length: whole(1, 1000, "paths go up through layers") = 6
    """Most edges of a path."""
    sign: Literal["both", "positive", "negative"] = "both"
    """Only paths that raise the target (positive) or lower it (negative)."""


class Attribute(Section):
    """Graphs of how prompts are answered."""

    prompts: Annotated[list[Prompt] | PromptFile, Expected("a list of prompts, or {file: FILE}")] = []
    """The prompts to explain."""
    max_features: Positive | None = None
    """Features whose incoming edges are computed, by influence; default all."""
    max_edges: whole(1, 10**11, "they are held in memory") = 200_000_000
    """Most edges of a graph that are held at once, 12 bytes each. Above this number only the strongest are kept. The weight of
    the others is stored as `dropped_mass` of their target; scores count it as error."""
    node_threshold: Fraction = 0.8
    """Share of influence that the kept nodes make up."""
    edge_threshold: Fraction = 0.98
    """Share of influence that the kept edges make up."""
    check_edges: Count = 0
    """Edges per graph that are checked: their source is removed in a forward pass of the frozen model."""
    ablations: Count = 20
    """Features per graph that are ablated, the most influential first, in the replacement model and in the model itself.
    graphs.ablation_spearman compares influence with the effects in the replacement model, the named query compare_graphs with
    both."""
    sweep: list[Fraction] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    """Further node thresholds at which each graph is pruned: table prune_curves."""
    supernode_similarity: Fraction = 0.4
    """Least mean similarity of the features of a group in table supernodes; 0: no groups. Grouped are kept features at one token
    position. Similarity is the geometric mean of two cosines: of what they write, and of their edges."""
    paths: Annotated[Paths | None, Added] = None
    """Tables paths and path_steps: the strongest paths from embeddings and errors to each target, and the attention heads that each step
    goes through, with a factor of the prompt and one of the weights. `paths: {}` takes the defaults."""
    dtype: Annotated[Literal["float32", "bfloat16"], Added] = "float32"
    """Number type in which graphs are computed: float32 (float64 where the model is), or bfloat16 with half the memory and three
    digits; docs/choices.md says how far its graphs differ."""
    constant_positions: Positions = 1
    """How many of the first positions of a prompt are constants of it: BOS, or the prefix that all chats share (4 for Gemma 3
    -it). They are embeddings without features or errors, in graphs and interventions; their MLP outputs are booked in `bias`."""
    launch: Annotated[Launch, Neutral] = Launch()
    """Processes that share the prompts."""

    def result_settings(self):
        settings = super().result_settings()
        if self.max_features is not None:
            settings["expansion"] = 2  # how the most influential features are found; raised when others would be
        return settings
