"""What a synthetic harvest says of features beside windows and statistics: labels of the text on which they fire, what drives them by weights alone.

Numbers agree with each other as those of a harvest do: a feature's firings on all labels are those of its histogram at most, its entropy and
information are those of its rates.
"""

import numpy as np
import polars as pl
import pyarrow as pa
from benchmarks.synthetic_harvest import named
from benchmarks.synthetic_text import BOS, LABELS

from cltdb.harvest.labels import entropy, information_bits

N_HEADS = 12
N_HEAD_EDGES = 2  # of a target: harvest.head_edges
N_INPUTS = 2  # tokens and positions of a feature: harvest.input_edges
N_LENS = 4  # tokens of harvest.lens_tokens
N_OVERLAPS, AT = 100, (5, 10)  # features of a layer, and k


def labels(text, traits, mean, layer, *, seed):
    """(columns of table feature_labels, columns of table features) of one layer; mean [n_features]: of the activations. Half of the features fire
    on all labels alike, the others more on some."""
    rng, of_layer = np.random.default_rng([seed, 6, layer]), traits.of(layer)
    n_tokens = np.bincount(text.labels[text.tokens != BOS], minlength=len(LABELS))
    n = len(of_layer.count)
    spread = np.where(rng.random(n) < 0.5, 0.05, 1.5)
    odds = n_tokens * np.exp(spread[:, None] * rng.standard_normal((n, len(LABELS))))
    firings = np.minimum(rng.multinomial(of_layer.count, odds / odds.sum(axis=1, keepdims=True)), n_tokens)
    rate = firings / n_tokens
    matched = np.minimum(rate * np.exp(0.3 * rng.standard_normal(rate.shape)), 1)
    with np.errstate(invalid="ignore"):
        share = rate / rate.sum(axis=1, keepdims=True)
    feature, label = np.nonzero(np.repeat((firings.sum(axis=1) > 0)[:, None], len(LABELS), axis=1))
    at = feature, label
    rows = {
        "layer": np.full(len(feature), layer, dtype=np.int32),
        "feature": feature.astype(np.int32),
        "label": named(label, LABELS),
        "tokens": n_tokens[label],
        "firings": firings[at],
        "mass": (firings * mean[:, None])[at],
        "rate": rate[at],
        "matched_rate": matched[at],
        "share": share[at],
    }
    of_features = {
        "label_entropy": pl.Series(entropy(share)).fill_nan(None),
        "label_information_bits": information_bits(rate),
        "label_information_matched_bits": information_bits(matched),
    }
    return rows, of_features


def lens(vocabulary, layer, n_features, *, seed):
    """Column lens_logits of table features: the same few tokens of every feature."""
    rng = np.random.default_rng([seed, 7, layer])
    token = np.tile(np.linspace(1, len(vocabulary) - 1, N_LENS).astype(np.int32), n_features)
    entries = pa.StructArray.from_arrays(
        [pa.array(token), pa.array(rng.normal(0, 0.1, len(token)).astype(np.float32))], ["token", "value"]
    )
    return pa.ListArray.from_arrays(np.arange(n_features + 1, dtype=np.int32) * N_LENS, entries)


def head(rng, n, *, first=0, last):
    """Attention heads of layers `first` to `last` [n]."""
    return pl.DataFrame({"layer": rng.integers(first, last + 1, n), "head": rng.integers(0, N_HEADS, n)}).select(
        pl.format("L{}H{}", "layer", "head").alias("via")
    )["via"]


def with_head_edges(edges, traits, layer, *, seed):
    """Columns of table feature_edges of one source layer: `edges` and those through one attention head, in the order of the key."""
    rng = np.random.default_rng([seed, 8, layer])
    n_layers, n_features = traits.count.shape
    direct = pl.DataFrame(edges).with_columns(via=pl.lit(None, pl.String))
    n = N_HEAD_EDGES * n_features if layer < n_layers - 1 else 0
    ends = {
        "source_layer": np.full(n, layer, dtype=np.int32),
        "source_feature": rng.integers(0, n_features, n).astype(np.int32),
        "target_layer": rng.integers(layer + 1, max(n_layers, layer + 2), n).astype(np.int32),
        "target_feature": rng.integers(0, n_features, n).astype(np.int32),
    }
    through = pl.DataFrame(ends | {"virtual_weight": rng.normal(0, 0.2, n).astype(np.float32)}).with_columns(
        via=head(rng, n, first=layer + 1, last=ends["target_layer"])
    )
    keys = [*ends, "via"]
    return pl.concat([direct, through.unique(keys, maintain_order=True)], how="diagonal").sort(keys).to_dict()


def inputs(vocabulary, layer, n_features, *, max_context, seed):
    """Columns of table input_edges of one layer: tokens through one attention head, learned positions directly or through one."""
    rng = np.random.default_rng([seed, 9, layer])
    n = 2 * N_INPUTS * n_features
    kind = np.tile(np.repeat([0, 1], N_INPUTS), n_features)
    rows = pl.DataFrame(
        {
            "layer": np.full(n, layer, dtype=np.int32),
            "feature": np.repeat(np.arange(n_features, dtype=np.int32), 2 * N_INPUTS),
            "kind": np.array(["token", "position"])[kind],
            "input": np.where(kind == 0, rng.integers(1, len(vocabulary), n), rng.integers(0, max_context, n)).astype(np.int32),
            "via": head(rng, n, last=layer),
            "virtual_weight": rng.normal(0, 0.1, n).astype(np.float32),
        }
    )
    is_direct = (pl.col("kind") == "position") & (pl.Series(rng.random(n)) < 0.3)
    rows = rows.with_columns(via=pl.when(~is_direct).then("via"))
    return rows.unique(["feature", "kind", "input", "via"], maintain_order=True).to_dict()


def overlaps(traits, *, seed):
    """Columns of table pullback_overlaps: a sample of the live features of each layer but the first."""
    rng, rows = np.random.default_rng([seed, 10]), []
    for layer in range(1, len(traits.count)):
        live = np.flatnonzero(traits.count[layer])
        chosen = np.sort(rng.permutation(live)[:N_OVERLAPS])
        n_tokens = rng.integers(1, 2000, len(chosen))
        for route in ("residual", "heads"):
            for k in AT:
                overlap = np.rint(k * rng.beta(3, 4, len(chosen))) / k
                control = np.rint(k * rng.beta(1, 15, len(chosen))) / k
                found = {"layer": layer, "feature": chosen, "route": route, "k": k, "overlap": overlap, "control": control}
                rows.append(pl.DataFrame(found | {"n_tokens": n_tokens}))
    return pl.concat(rows).sort("layer", "feature", "route", "k").to_dict()
