"""What a prompt did: its active features and their influence on the answer. A unit of the workspace per prompt, taken up after a kill.

Influence is that on a target whose weight is 1, in the prompt's attribution graph. So influences of prompts compare: they are shares of the
answer, not of the model's probability of it.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from cltdb.attribution.graph import attribute
from cltdb.engine.workspace import read_parquet, write_parquet
from cltdb.graphs.influence import Shares
from cltdb.graphs.paths import effects_on
from cltdb.groups.settings import TRACES
from cltdb.log import progress
from cltdb.replacement.edges import target_weights

COLUMNS = ("layer", "position", "feature", "influence", "effect", "embedding_share")


class Asked(NamedTuple):
    """A prompt to trace. name: for progress; target: what is explained, as of `attribute`, None for the likeliest tokens; key: of its unit."""

    name: str
    text: str
    target: Any
    key: str


class Trace(NamedTuple):
    """layer, position, feature [n_active] int64: the active features, positions counted from the end (-1 the last); none stands at the
    constant positions. influence [n_active]: on the answer, 1 that of the answer itself. effect [n_active]: what
    the feature adds to the answer's logit along all paths of the graph, with its sign. embedding_share [n_active]: of a feature's absolute
    incoming edges what comes straight from token embeddings, NaN where its edges were not computed. facts: JSON values, columns of table
    group_prompts."""

    layer: np.ndarray
    position: np.ndarray
    feature: np.ndarray
    influence: np.ndarray
    effect: np.ndarray
    embedding_share: np.ndarray
    facts: dict


def traces_of(asked, lm, dictionary, *, units, max_features):
    """The `Trace` of each `Asked` prompt."""
    found = []
    with progress("groups", total=len(asked), unit="prompts") as bar:
        for one in asked:
            stored = units.folder(TRACES, one.key) or _store(units, one.key, _traced(lm, dictionary, one, max_features))
            found.append(_read(*stored))
            bar.advance(note=one.name)
    return found


def _traced(lm, dictionary, asked, max_features):
    graph = attribute(lm, dictionary, asked.text, target=asked.target, max_features=max_features)
    index, whole = graph.index, float(graph.targets.weights.sum())
    influence, weights = graph.influence / whole, target_weights(graph.index, graph.targets) / whole
    effect = effects_on(graph.effects.adjacency, graph.feature_activations, weights)
    from_embeddings = Shares(graph.effects.adjacency).from_sources(index.is_kind("embedding"))
    probabilities = torch.softmax(graph.replacement.logits[-1].double(), dim=-1)
    token = None if asked.target is None else graph.targets.tokens[0]
    facts = {
        "tokens": list(index.tokens),
        "target_token": token,
        "probability": None if token is None else float(probabilities[token]),
        "top_token": int(probabilities.argmax()),
        "replacement_score": graph.replacement_score,
        "n_active": np.bincount(index.feature_layer, minlength=index.n_layers).tolist(),
        "feature_influence": np.bincount(index.feature_layer, influence[index.features], minlength=index.n_layers).tolist(),
        "error_influence": influence[index.errors].reshape(index.n_layers, -1).sum(1).tolist(),
    }
    known = np.where(graph.effects.expanded, from_embeddings, np.nan)[index.features]
    position = index.feature_position - index.n_positions
    values = (some[index.features] for some in (influence, effect))
    return Trace(index.feature_layer, position, index.feature, *values, known, facts)


def _store(units, key, trace):
    import polars as pl

    frame = pl.DataFrame({name: getattr(trace, name) for name in COLUMNS})
    return units.put_folder(TRACES, key, {"facts": trace.facts}, lambda folder: write_parquet(folder / "features.parquet", frame))


def _read(record, folder):
    frame = read_parquet(folder / "features.parquet")
    return Trace(*(frame[name].to_numpy() for name in COLUMNS), record["facts"])
