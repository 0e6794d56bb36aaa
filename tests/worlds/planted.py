"""A harvest made by hand: random text in which features fire by known rules, in the files that the stage explain reads."""

from itertools import permutations

import numpy as np
import polars as pl

from cltdb.engine.stage import Share
from cltdb.engine.units import Units
from cltdb.engine.workspace import write_parquet
from cltdb.explain.explain import explain
from cltdb.explain.labels.labels import labels_of
from cltdb.explain.settings import RULES_MODEL, Explain
from cltdb.explain.subjects import Subjects
from cltdb.explain.summary import summarise
from cltdb.harvest.tables import NEIGHBOURS, POOL, POOL_ACTIVATIONS

WINDOW = 16
VOCABULARY = [f"w{index}" for index in range(40)] + ["12", "7", "Paris", "Rome", "is", "."]
FEATURES = {
    "set": lambda t, i, rng: t[i] in (1, 2, 3),
    "bigram": lambda t, i, rng: i > 0 and t[i] == 5 and t[i - 1] in (6, 7, 8),
    "conditioned": lambda t, i, rng: t[i] == 9 and any(token == 10 for token in t[max(0, i - 6) : i]),
    "noisy": lambda t, i, rng: t[i] in (21, 22, 23) if rng.random() > 0.2 else False,
    "rare": lambda t, i, rng: t[i] == 39 and rng.random() < 0.02,
}
WORDS = {index for index, string in enumerate(VOCABULARY) if string.startswith("w")}
TOLD_BY_RULES = {
    "set": lambda t, i, rng: t[i] in (1, 2, 3),
    "after": lambda t, i, rng: i > 0 and t[i] == 5 and t[i - 1] in (6, 7, 8),
    "repeated": lambda t, i, rng: t[i] in t[:i],
    "number after a word": lambda t, i, rng: i > 0 and t[i] in (40, 41) and t[i - 1] in WORDS,
    "one language": lambda t, i, rng: t.label == "fr",
    "tokens of one language": lambda t, i, rng: t[i] in (30, 31, 32, 33) and t.label == "fr",
    "any token after": lambda t, i, rng: i > 0 and t[i - 1] in (11, 12),
    "noisy": lambda t, i, rng: t[i] in (21, 22, 23) and rng.random() > 0.2,
}
"""What rules can tell exactly, and a feature that leaves out a fifth."""
INTEGERS = ("layer", "feature", "rank", "neighbour", "window_id", "offset", "start", "length", "peak_token")
KINDS = dict.fromkeys(INTEGERS, pl.Int32)
KINDS |= {"tokens": pl.List(pl.Int32), "activations": pl.List(pl.Float32), "offsets": pl.List(pl.UInt16)}


class _Row(list):
    """The tokens of a window; label: of its document."""

    def __init__(self, tokens, label):
        super().__init__(tokens)
        self.label = label


def write_harvest(directory, *, features=FEATURES, n_windows=3000, n_tokens=46, seed=0, earlier=False):
    """One layer, one feature per entry of `features`; windows of random tokens from 300 documents of two labels. earlier: as harvests of
    an earlier cltdb are, whose contexts hold their tokens and all activations."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, n_tokens, (2 * n_windows, WINDOW))
    follows = rng.random(tokens.shape) < 0.15  # so that the bigram and the conditioned feature fire often enough
    tokens[:, 1:][follows[:, 1:] & np.isin(tokens[:, :-1], (6, 7, 8))] = 5
    sequence = np.arange(2 * n_windows)
    documents = sequence % 300
    labels = np.array(["en", "fr"], dtype=object)[documents % 2]
    fires = np.zeros((len(features), *tokens.shape), dtype=np.float32)
    rows = [_Row(row, label) for row, label in zip(tokens.tolist(), labels, strict=True)]
    for feature, rule in enumerate(features.values()):
        for window, row in enumerate(rows):
            for place in range(WINDOW):
                if rule(row, place, rng):
                    fires[feature, window, place] = 1 + rng.random()
    contexts = context_columns(tokens[:n_windows], fires[:, :n_windows], documents, labels)
    if earlier:
        tables = {"contexts": {name: column for name, column in contexts.items() if name != "peak_token"}}
    else:
        tables = {"windows": sparse(contexts), "harvested_text": text_columns(tokens), "feature_edges": edge_columns()}
    for path, columns in {
        POOL: pool_columns(tokens[n_windows:], sequence[n_windows:], documents[n_windows:], labels[n_windows:]),
        POOL_ACTIVATIONS: activation_columns(fires[:, n_windows:]),
        NEIGHBOURS: neighbour_columns(len(features)),
        "tables/features/layer-00.parquet": feature_columns(len(features)),
        **{f"tables/{table}/layer-00.parquet": columns for table, columns in tables.items()},
    }.items():
        kinds = {name: kind for name, kind in KINDS.items() if name in columns}
        write_parquet(directory / path, pl.DataFrame(columns, schema_overrides=kinds))
    return directory


def feature_columns(n):
    """Each feature promotes seven tokens, those of the first features of their own."""
    effects = [
        [{"token": (7 * feature + index) % len(VOCABULARY), "value": 1.0 - index / 10} for index in range(7)]
        for feature in range(n)
    ]
    rest = {"density": np.linspace(0.1, 0.01, n), "max_activation": 2.0, "top_logits": effects, "bottom_logits": effects[::-1]}
    return {"dict_id": "d", "layer": 0, "feature": range(n), **rest}


def pool_columns(tokens, sequence, documents, labels):
    ids = {"window_id": range(len(tokens)), "document": documents, "sequence": sequence}
    return ids | {"start": 0, "label": labels.tolist(), "tokens": tokens.tolist()}


def activation_columns(fires):
    feature, window, offset = np.nonzero(fires)
    values = fires[feature, window, offset]
    return {"layer": 0 * feature, "feature": feature, "window_id": window, "offset": offset, "activation": values}


def neighbour_columns(n):
    pairs = list(permutations(range(n), 2))
    ranks = [index % (n - 1) for index in range(len(pairs))]
    feature, neighbour = zip(*pairs, strict=True)
    return {"layer": 0, "feature": feature, "rank": ranks, "neighbour": neighbour, "cosine": 0.5}


def edge_columns():
    """The set drives the bigram and holds the conditioned feature back; as if they were of later layers. Through a head it holds the bigram back."""
    ends = {
        "source_layer": 0,
        "source_feature": [0, 0, 0],
        "target_layer": 0,
        "target_feature": [1, 2, 1],
        "via": [None, None, "L0H1"],
    }
    means = {"era": [1.0, 0.0, None], "twera": [0.5, 0.0, None], "coactivation": [0.1, 0.1, None]}
    return {"dict_id": "d", **ends, "virtual_weight": [1.0, -2.0, -9.0], **means}


def context_columns(tokens, fires, documents, labels):
    """The first 70 windows in which a feature fires, all of band "top"."""
    firing = [np.nonzero(per_feature.any(axis=1))[0][:70] for per_feature in fires]
    feature, rank = zip(*((feature, rank) for feature, windows in enumerate(firing) for rank in range(len(windows))), strict=True)
    window = np.concatenate(firing)
    values = fires[list(feature), window]
    return {
        "dict_id": "d", "layer": 0, "feature": feature, "band": "top", "rank": rank, "document": documents[window],
        "sequence": window, "start": 0, "position": values.argmax(1), "label": labels[window].tolist(),
        "tokens": tokens[window].tolist(), "activations": values.tolist(), "max_activation": values.max(1).astype(float),
        "peak_token": tokens[window][np.arange(len(window)), values.argmax(1)],
    }  # fmt: skip


def sparse(contexts):
    """Columns of table windows of those of table contexts."""
    active = [[place for place, value in enumerate(values) if value > 0] for values in contexts["activations"]]
    values = [[row[place] for place in places] for row, places in zip(contexts["activations"], active, strict=True)]
    rest = {name: column for name, column in contexts.items() if name != "tokens"}
    return rest | {"length": WINDOW, "offsets": active, "activations": values}


def text_columns(tokens):
    return {"dict_id": "d", "sequence": range(len(tokens)), "tokens": tokens.tolist()}


def explain_planted(harvested, directory, *, seed, units=None, base="b", compared=(), raised=None, n_processes=1, **settings):
    """(explanations, scores) of an artifact in `directory`, with a workspace of its own where no units are given; files of
    labels lie there. compared: baseline dictionaries; raised: as of `Subjects`. Made by processes one after the other."""
    section = Explain(**{"model": RULES_MODEL, **settings})
    subjects = Subjects(harvested, vocabulary=VOCABULARY, seed=seed, base=base)
    subjects.raised = raised
    units, labels = units or Units(directory / "workspace", directory), [labels_of(one, directory) for one in section.labels]
    for rank in range(n_processes):
        made = dict(directory=directory, units=units, dict_id="d", share=Share(rank, n_processes))
        explain(section, subjects, labels=labels, baselines=compared, **made)
    summarise(directory, section, n_live=len(subjects.windows.live()))
    return tuple(pl.read_parquet(directory / f"tables/{table}/*.parquet") for table in ("explanations", "scores"))
