"""A harvest made by hand: random text in which features fire by known rules, in the files that the stage explain reads."""

import numpy as np
import polars as pl
import pyarrow as pa

from cltdb.engine.workspace import write_parquet
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


def write_harvest(directory, *, n_windows=3000, n_tokens=46, seed=0, vocabulary_map=None):
    """One layer, one feature per entry of FEATURES; windows of random tokens from 300 documents of two labels."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, n_tokens, (2 * n_windows, WINDOW))
    follows = rng.random(tokens.shape) < 0.15  # so that the bigram and the conditioned feature fire often enough
    tokens[:, 1:][follows[:, 1:] & np.isin(tokens[:, :-1], (6, 7, 8))] = 5
    sequence = np.arange(2 * n_windows)
    documents = sequence % 300
    labels = np.array(["en", "fr"], dtype=object)[documents % 2]
    fires = np.zeros((len(FEATURES), *tokens.shape), dtype=np.float32)
    for feature, rule in enumerate(FEATURES.values()):
        for window, row in enumerate(tokens):
            for place in range(WINDOW):
                if rule(row, place, rng):
                    fires[feature, window, place] = 1 + rng.random()
    _write_features(directory)
    _write_contexts(directory, tokens[:n_windows], fires[:, :n_windows], documents, labels)
    pool = slice(n_windows, None)
    write_parquet(
        directory / POOL,
        pa.table(
            {
                "window_id": pa.array(np.arange(n_windows), pa.int32()),
                "document": documents[pool],
                "sequence": sequence[pool],
                "start": pa.array(np.zeros(n_windows), pa.int32()),
                "label": pa.array(labels[pool], pa.string()),
                "tokens": pa.array(tokens[pool].tolist(), pa.list_(pa.int32())),
            }
        ),
    )
    feature, window, offset = np.nonzero(fires[:, pool])
    write_parquet(
        directory / POOL_ACTIVATIONS,
        pa.table(
            {
                "layer": pa.array(np.zeros(len(feature)), pa.int32()),
                "feature": pa.array(feature, pa.int32()),
                "window_id": pa.array(window, pa.int32()),
                "offset": pa.array(offset, pa.int32()),
                "activation": fires[:, pool][feature, window, offset],
            }
        ),
    )
    pairs = [(feature, other) for feature in range(len(FEATURES)) for other in range(len(FEATURES)) if other != feature]
    write_parquet(
        directory / NEIGHBOURS,
        pl.DataFrame(
            {
                "layer": 0,
                "feature": [a for a, _ in pairs],
                "rank": [index % (len(FEATURES) - 1) for index in range(len(pairs))],
                "neighbour": [b for _, b in pairs],
                "cosine": 0.5,
            },
            schema_overrides={"layer": pl.Int32, "feature": pl.Int32, "rank": pl.Int32, "neighbour": pl.Int32},
        ),
    )
    return directory


def _write_features(directory):
    write_parquet(
        directory / "tables/features/layer-00.parquet",
        pl.DataFrame(
            {
                "dict_id": "d",
                "layer": 0,
                "feature": range(len(FEATURES)),
                "density": np.linspace(0.1, 0.01, len(FEATURES)),
                "max_activation": 2.0,
            },
            schema_overrides={"layer": pl.Int32, "feature": pl.Int32},
        ),
    )


def _write_contexts(directory, tokens, fires, documents, labels):
    rows = []
    for feature in range(len(FEATURES)):
        windows = np.nonzero(fires[feature].any(axis=1))[0][:70]
        for rank, window in enumerate(windows):
            activations = fires[feature, window]
            rows.append(
                {
                    "dict_id": "d",
                    "layer": 0,
                    "feature": feature,
                    "band": "top",
                    "rank": rank,
                    "document": int(documents[window]),
                    "sequence": int(window),
                    "start": 0,
                    "position": int(activations.argmax()),
                    "label": labels[window],
                    "tokens": tokens[window].tolist(),
                    "activations": activations.tolist(),
                    "max_activation": float(activations.max()),
                }
            )
    kinds = {"layer": pl.Int32, "feature": pl.Int32, "tokens": pl.List(pl.Int32), "activations": pl.List(pl.Float32)}
    write_parquet(directory / "tables/contexts/layer-00.parquet", pl.DataFrame(rows, schema_overrides=kinds))
