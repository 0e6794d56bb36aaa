"""Features as explainers and scorers see them: where they fire, what they promote, what drives them."""

from functools import cache, cached_property
from pathlib import Path

import numpy as np
import polars as pl

from cltdb.explain.examples import HarvestedWindows
from cltdb.explain.rules import Lexicon
from cltdb.harvest.contexts import read_table
from cltdb.harvest.hashing import hash64

COMPARED = 64
NEIGHBOURS, NEIGHBOUR_TOKENS = 5, 3
"""Of the evidence of a feature's edges: features of each kind, and tokens that each fires on most."""


class Subjects:
    """The features of a harvest. vocabulary: string per token id; base: `keys.base_of` the harvest.

    raised(layer, features): {feature: token ids that setting it raises, the strongest first}; to be set where a scorer asks.
    """

    def __init__(self, harvest_directory, *, vocabulary, seed, base):
        self.directory, self.vocabulary, self.base, self.raised = Path(harvest_directory), vocabulary, base, None
        self.windows = HarvestedWindows(harvest_directory, seed=seed)
        self.compared = cache(self._compared)

    def subject(self, layer, feature):
        return Subject(self, layer, feature)

    @cached_property
    def lexicon(self):
        """What rules know of tokens."""
        return Lexicon.learnt(self.windows, self.vocabulary)

    @cached_property
    def effects(self):
        """{layer: (promoted, suppressed)}, token ids [n_features, n], the strongest first, -1 where there are fewer."""
        found = {}
        for (layer,), rows in self.windows.features.group_by("layer", maintain_order=True):
            columns = (rows[name].to_list() for name in ("top_logits", "bottom_logits"))
            found[layer] = tuple(padded([[entry["token"] for entry in row or ()] for row in column]) for column in columns)
        return found

    def _compared(self, layer):
        """Features of a layer that stand beside any other where effects of features are compared: up to COMPARED that fire, drawn at random."""
        features = self.windows.features.filter(pl.col("max_activation") > 0, layer=layer)["feature"].to_numpy()
        return features[np.argsort(hash64(self.windows.seed, layer, features, 4), kind="stable")][:COMPARED].tolist()

    @cached_property
    def edges(self):
        """Rows of table feature_edges along the residual stream; None where the harvest has none."""
        is_there = any((self.directory / "tables/feature_edges").glob("*.parquet"))
        if not is_there:
            return None
        edges = read_table(self.directory, "feature_edges")
        return edges.filter(pl.col("via").is_null()) if "via" in edges.columns else edges

    @cached_property
    def peaks(self):
        """{(layer, feature): strings of the tokens that most of its windows peak on}; of harvests by an earlier cltdb none."""
        if "peak_token" not in self.windows.contexts.rows.columns:
            return {}
        rows = self.windows.contexts.rows.select("layer", "feature", "peak_token").drop_nulls()
        counted = rows.group_by("layer", "feature", "peak_token").len().sort("len", "peak_token", descending=[True, False])
        first = counted.group_by("layer", "feature", maintain_order=True).agg(pl.col("peak_token").head(NEIGHBOUR_TOKENS))
        return {(layer, feature): [self.vocabulary[token] for token in tokens] for layer, feature, tokens in first.iter_rows()}


def padded(rows):
    """Lists of token ids as an array [n, longest], -1 after their ends."""
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for row, tokens in zip(table, rows, strict=True):
        row[: len(tokens)] = tokens
    return table


class Subject:
    """One feature."""

    def __init__(self, subjects, layer, feature):
        self.all, self.layer, self.feature = subjects, layer, feature
        self.trials = {}  # {(scorer, side): what its explanations were asked}

    @cached_property
    def examples(self):
        """Its `Examples`: windows that explain it and windows that test explanations."""
        return self.all.windows.examples(self.layer, self.feature)

    @property
    def promoted(self):
        """Token ids that it promotes, the strongest first."""
        return self._effect(0)

    @property
    def suppressed(self):
        return self._effect(1)

    def _effect(self, which):
        row = self.all.effects[self.layer][which][self.feature]
        return row[row >= 0].tolist()

    def neighbours(self):
        """{driven_by, held_back_by, drives, holds_back: lists of the tokens that features fire on}, the strongest first: of harvest's edges,
        by TWERA where it drives, by virtual weight where it holds back."""
        edges = self.all.edges
        ends = {"target": ("driven_by", "held_back_by"), "source": ("drives", "holds_back")}
        found = {}
        for end, names in ends.items():
            other = "source" if end == "target" else "target"
            if edges is None:
                found |= dict.fromkeys(names, [])
                continue
            own = edges.filter(pl.col(f"{end}_layer") == self.layer, pl.col(f"{end}_feature") == self.feature)
            for name, by, sign in zip(names, ("twera", "virtual_weight"), (1, -1), strict=True):
                rows = own.filter(pl.col(by) * sign > 0).sort(pl.col(by) * sign, descending=True).head(NEIGHBOURS)
                places = rows.select(f"{other}_layer", f"{other}_feature").rows()
                found[name] = [tokens for tokens in map(self.all.peaks.get, places) if tokens]
        return found


def windows_shortage(subject):
    """What there is too little of among a feature's windows, in one line, or None."""
    return subject.examples.shortage
