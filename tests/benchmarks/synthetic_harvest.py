"""What a harvest writes, drawn at random: features that fire on some tokens of a text, their windows, edges between them.

Numbers agree with each other as those of a harvest do: a window's tokens are the text's, its peak is the largest of its activations, the
highest of a feature's windows has its maximum, histograms count as many firings as the density says.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from benchmarks.synthetic_text import LABELS, firing_tokens, n_firing

from cltdb.harvest.windows import window_around

OF_PHRASE = 0.9  # share of the features that fire after a phrase
N_SHOWN = 10  # tokens in top_logits and the like
N_NEIGHBOURS = 10
N_BINS = 32  # of a histogram: quarters of octaves, the maximum's octave last
LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
N_COUNTED = 200_000  # tokens over which coactivation is counted


class Traits(NamedTuple):
    """Of all features, each [n_layers, n_features]: firings in the text (0: dead), largest activation, threshold as a share of it, the shape
    of their distribution, the tokens that they fire on [.., N_SET] and how many of them, topic, a phrase and the share of the windows that
    follow it, 0 of features that are of none."""

    count: np.ndarray
    maximum: np.ndarray
    floor: np.ndarray
    shape: np.ndarray
    tokens: np.ndarray
    n_tokens: np.ndarray
    topic: np.ndarray
    phrase: np.ndarray
    after_phrase: np.ndarray

    def of(self, layer):
        return Traits(*(column[layer] for column in self))

    def activation(self, feature, share):
        """The activation below which this share of a feature's firings lie."""
        low = self.floor[feature] ** self.shape[feature]
        value = (low + share * (1 - low)) ** (1 / self.shape[feature]) * self.maximum[feature]
        return np.minimum(value.astype(np.float32), self.maximum[feature])


def random_traits(vocabulary, text, *, n_layers, n_features, dead_share, seed):
    """Log-normal densities; tokens of a topic, rare ones more often than they are in the text."""
    rng, shape = np.random.default_rng([seed, 1]), (n_layers, n_features)
    typical = max(1.5e-4, 60 / text.n_ordinary)  # a small text has few places for a rare feature
    density = np.minimum(rng.lognormal(np.log(typical), 1.4, shape), 0.3)
    count = np.maximum(1, np.rint(density * text.n_ordinary)).astype(np.int64)
    count[rng.random(shape) < dead_share] = 0
    tokens, topic = firing_tokens(vocabulary, np.diff(text.begin), shape, rng)
    n_tokens, phrases = n_firing(shape, rng), text.phrases
    phrase = rng.integers(0, len(phrases.topic), shape)
    is_of_phrase = rng.random(shape) < OF_PHRASE
    return Traits(
        count,
        rng.lognormal(1.0, 0.7, shape).astype(np.float32),
        rng.uniform(0.01, 0.3, shape),
        rng.uniform(0.3, 1.5, shape),
        np.where(is_of_phrase[..., None], phrases.tokens[phrase], tokens),
        np.where(is_of_phrase, phrases.n_tokens[phrase], n_tokens),
        np.where(is_of_phrase, phrases.topic[phrase], topic),
        phrase,
        np.where(is_of_phrase, rng.uniform(0.5, 1, shape), 0),
    )


# Windows


def windows(text, traits, layer, *, sizes, seed):
    """(columns of table windows, windows per feature, documents per feature) of one layer."""
    rng, of_layer = np.random.default_rng([seed, 2, layer]), traits.of(layer)
    feature, band, rank, place, peak = _places(text, of_layer, sizes, rng)
    sequence, position = np.divmod(place, text.tokens.shape[1])
    at = (sequence, position)
    start, length = window_around(position, start=text.start[at], stop=text.stop[at], window=sizes.window)
    offsets, values, ends = _firings(of_layer, feature, position - start, length, peak, rng)
    n_windows = np.bincount(feature, minlength=sizes.n_features)
    documents = np.unique(feature * (int(text.documents[-1, -1]) + 1) + text.documents[at]) // (int(text.documents[-1, -1]) + 1)
    columns = {
        "layer": np.full(len(feature), layer, dtype=np.int32),
        "feature": feature.astype(np.int32),
        "band": named(band + 1, ["top", *(f"q{number}" for number in range(sizes.n_quantiles))]),
        "rank": rank.astype(np.int32),
        "document": text.documents[at],
        "sequence": sequence,
        "start": start,
        "position": position.astype(np.int32),
        "length": length,
        "label": named(text.labels[at], LABELS),
        "offsets": pa.ListArray.from_arrays(ends, offsets.astype(np.uint16)),
        "activations": pa.ListArray.from_arrays(ends, values),
        "max_activation": peak,
        "peak_token": text.tokens[at],
    }
    return columns, n_windows, np.bincount(documents, minlength=sizes.n_features)


def _places(text, traits, sizes, rng):
    """(feature, band, rank, flat place, peak activation) of every window, sorted by the first three; band -1 is the top."""
    n_wanted = sizes.top + sizes.n_quantiles * sizes.per_quantile
    shape = (sizes.n_features, n_wanted + n_wanted // 3)
    which = (traits.n_tokens[:, None] * rng.random(shape) ** 2).astype(np.int64)
    token = np.take_along_axis(traits.tokens, which, axis=1)
    n_there = text.begin[token + 1] - text.begin[token]
    place = text.by_token[np.minimum(text.begin[token] + (rng.random(shape) * n_there).astype(np.int64), len(text.by_token) - 1)]
    is_after = rng.random(shape) < traits.after_phrase[:, None]
    place = np.where(is_after, _after_phrase(text.phrases, traits.phrase, np.cumsum(is_after, axis=1), rng), place)
    kept = first_distinct(place, np.minimum(n_wanted, traits.count)[:, None]) & (is_after | (text.tokens.ravel()[place] == token))
    feature, number = np.nonzero(kept)[0], (np.cumsum(kept, axis=1) - 1)[kept]
    n_rest = np.maximum(kept.sum(axis=1) - sizes.top, 1)[feature]
    rest = number - sizes.top
    band = np.where(rest < 0, -1, rest * sizes.n_quantiles // n_rest)
    steps = rng.exponential(size=(sizes.n_features, sizes.top))
    steps[:, 0] = 0
    top_share = np.exp(-np.cumsum(steps, axis=1) / np.maximum(traits.count, 1)[:, None])
    lowest = top_share[feature, -1]
    share = np.where(
        rest < 0, top_share[feature, np.minimum(number, sizes.top - 1)], lowest * (rest + rng.random(len(rest))) / n_rest
    )
    peak = traits.activation(feature, share)
    order = np.lexsort((-peak, band, feature))
    feature, band = feature[order], band[order]
    _, first, group = np.unique(feature * (sizes.n_quantiles + 1) + band + 1, return_index=True, return_inverse=True)
    return feature, band, np.arange(len(feature)) - first[group], place[kept][order], peak[order]


def _after_phrase(phrases, phrase, number, rng):
    """The flat place after an occurrence of a phrase [n]; by number [n, k], from one at random on."""
    begin, n_there = phrases.begin[phrase], np.diff(phrases.begin)[phrase]
    first = (rng.random(len(phrase)) * n_there).astype(np.int64)
    return phrases.places[begin[:, None] + (first[:, None] + number) % n_there[:, None]]


def _firings(traits, feature, peak_offset, length, peak, rng):
    """(offsets in the window, activations, where each window's begin and end [n + 1]); a log-normal number of them."""
    n, longest = len(feature), int(length.max(initial=1))
    more = np.minimum(rng.lognormal(0.5, 1.0, n).astype(np.int64), length - 1)
    window = np.repeat(np.arange(n), more)
    drawn = window * longest + (rng.random(len(window)) * length[window]).astype(np.int64)
    peaks = np.arange(n) * longest + peak_offset
    window, offsets = np.divmod(np.unique(np.concatenate([drawn, peaks])), longest)
    low = (traits.floor[feature] * traits.maximum[feature])[window]
    values = np.minimum(low + (peak[window] - low) * rng.random(len(window)) ** 2, peak[window]).astype(np.float32)
    is_peak = offsets == peak_offset[window]
    values[is_peak] = peak
    return offsets, values, np.concatenate([[0], np.cumsum(np.bincount(window, minlength=n))]).astype(np.int32)


def first_distinct(values, n):
    """True [rows, k] at the first n different values of each row."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered, fresh = np.take_along_axis(values, order, axis=1), np.ones(values.shape, dtype=bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    found = np.empty_like(fresh)
    np.put_along_axis(found, order, fresh, axis=1)
    return found & (np.cumsum(found, axis=1) <= n)


def named(codes, names):
    """Text [n] by its number among `names`."""
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(names)).cast(pa.string())


def texts_with_windows(text, sequences):
    """Columns of table harvested_text: the sequences [n] that have a window."""
    rows = text.tokens[sequences]
    ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return {"sequence": sequences, "tokens": pa.ListArray.from_arrays(ends, rows.ravel())}


# Features


def features(vocabulary, text, traits, layer, *, n_windows, n_documents, seed):
    """Columns of table features of one layer."""
    rng, of_layer = np.random.default_rng([seed, 3, layer]), traits.of(layer)
    n, n_layers = len(of_layer.count), len(traits.count)
    live = of_layer.count > 0
    histogram, mean, std, quantiles = _histograms(of_layer, rng)
    norms = np.sort(rng.lognormal(-1, 0.5, (n, n_layers - layer)), axis=1)[:, ::-1].astype(np.float32)
    return {
        "layer": np.full(n, layer, dtype=np.int32),
        "feature": np.arange(n, dtype=np.int32),
        "density": of_layer.count / text.n_ordinary,
        "max_activation": np.where(live, of_layer.maximum, 0).astype(np.float32),
        "mean_activation": mean.astype(np.float32),
        "threshold": (of_layer.floor * of_layer.maximum).astype(np.float32),
        "encoder_norm": rng.lognormal(0, 0.3, n).astype(np.float32),
        "decoder_norms": ragged(norms, np.ones(norms.shape, dtype=bool)),
        "dead": ~live,
        "top_logits": _tokens(vocabulary, of_layer.topic, rng, sign=1),
        "bottom_logits": _tokens(vocabulary, rng.integers(0, len(vocabulary.begin) - 1, n), rng, sign=-1),
        "top_embeddings": _tokens(vocabulary, of_layer.topic, rng, sign=1),
        "bottom_embeddings": _tokens(vocabulary, rng.integers(0, len(vocabulary.begin) - 1, n), rng, sign=-1),
        "n_contexts": n_windows.astype(np.int32),
        "n_documents": n_documents.astype(np.int32),
        "std_activation": std.astype(np.float32),
        "quantiles": quantiles,
        "histogram": histogram,
    }


def _histograms(traits, rng):
    """(histogram, mean, standard deviation, quantiles) of the firings of the features of a layer."""
    n, live = len(traits.count), traits.count > 0
    octave = np.floor(np.log2(traits.maximum.astype(float)))
    edges = np.exp2(octave[:, None] - 7 + np.arange(N_BINS + 1) // 4) * (1 + np.arange(N_BINS + 1) % 4 / 4)
    low = (traits.floor**traits.shape)[:, None]
    below = np.clip(((edges / traits.maximum[:, None]) ** traits.shape[:, None] - low) / (1 - low), 0, 1)
    counts = rng.multinomial(np.maximum(traits.count - 1, 0), np.diff(below, axis=1) / (below[:, -1:] - below[:, :1]))
    highest = (28 + np.floor((traits.maximum / np.exp2(octave) - 1) * 4)).astype(np.int64)
    counts[np.arange(n), highest] += live
    inner = np.clip(edges, (traits.floor * traits.maximum)[:, None], traits.maximum[:, None])
    middle, total = (inner[:, 1:] + inner[:, :-1]) / 2, np.maximum(traits.count, 1)
    mean = (counts * middle).sum(axis=1) / total
    std = np.sqrt((counts * (middle - mean[:, None]) ** 2).sum(axis=1) / total)
    cumulative, quantiles = np.cumsum(counts, axis=1), np.empty((n, len(LEVELS)))
    for column, level in enumerate(LEVELS):
        wanted = level * traits.count
        bin = np.minimum((cumulative < wanted[:, None]).sum(axis=1), N_BINS - 1)
        at = (np.arange(n), bin)
        inside = np.clip((wanted - (cumulative[at] - counts[at])) / np.maximum(counts[at], 1), 0, 1)
        quantiles[:, column] = edges[at] + inside * (edges[np.arange(n), bin + 1] - edges[at])
    quantiles = np.minimum(quantiles, traits.maximum[:, None]).astype(np.float32)
    there = counts > 0
    ends = _ends(there)
    values = [pa.array(edges[:, :-1][there].astype(np.float32)), pa.array(counts[there].astype(np.int64))]
    histogram = pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays(values, ["low", "n"]))
    known = ragged(quantiles, np.ones(quantiles.shape, dtype=bool))
    return histogram, mean, std, pc.if_else(pa.array(live), known, None)


def ragged(values, mask):
    """Those values [rows, k] of which mask is true, as a list per row."""
    return pa.ListArray.from_arrays(_ends(mask), np.ascontiguousarray(values[mask]))


def _ends(mask):
    return np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32)


def _tokens(vocabulary, topic, rng, *, sign):
    """N_SHOWN different tokens with an effect each, the strongest first: half of them of a topic [n]."""
    n, half = len(topic), N_SHOWN * 2 // 3
    size = vocabulary.begin[topic + 1] - vocabulary.begin[topic]
    first = (rng.random(n) ** 4 * size).astype(np.int64)[:, None] + np.arange(half)
    of_topic = vocabulary.by_topic[vocabulary.begin[topic][:, None] + first % size[:, None]]
    others = rng.integers(1, len(vocabulary), (n, half + 2))
    token = np.concatenate([of_topic, others], axis=1).astype(np.int32)
    kept = first_distinct(token, N_SHOWN)
    value = np.sort(rng.gamma(4.0, 0.05, (n, N_SHOWN)), axis=1)[:, ::-1].astype(np.float32) * sign
    chosen = np.arange(N_SHOWN) < kept.sum(axis=1)[:, None]
    entries = pa.StructArray.from_arrays([pa.array(token[kept]), pa.array(value[chosen])], ["token", "value"])
    return pa.ListArray.from_arrays(_ends(kept), entries)


def feature_edges(traits, layer, *, per_feature, seed):
    """Columns of table feature_edges of the features of one layer: near layers more than far ones, some features more than others."""
    rng = np.random.default_rng([seed, 4, layer])
    n_layers, n_features = traits.count.shape
    n = int(1.05 * per_feature * n_features * n_layers / (n_layers - 1)) if layer < n_layers - 1 else 0
    source = rng.integers(0, n_features, n)
    target_layer = layer + 1 + ((n_layers - 1 - layer) * rng.random(n) ** 2).astype(np.int64)
    target = (n_features * rng.random(n) ** 1.3).astype(np.int64)
    there = (traits.count[layer, source] > 0) & (traits.count[np.minimum(target_layer, n_layers - 1), target] > 0)
    flat = np.unique(((source * n_layers + target_layer) * n_features + target)[there])
    rest, target = np.divmod(flat, n_features)
    source, target_layer = np.divmod(rest, n_layers)
    weight = (rng.standard_normal(len(flat)) * rng.lognormal(-3, 0.8, len(flat))).astype(np.float32)
    together = rng.random(len(flat)) < 0.82
    fewest = np.minimum(traits.count[layer, source], traits.count[target_layer, target]) * min(
        1.0, N_COUNTED / traits.count.max()
    )
    tokens = np.where(together, 1 + (fewest * rng.random(len(flat)) ** 2).astype(np.int64), 0)
    strength = traits.maximum[layer, source] * traits.floor[layer, source]
    return {
        "source_layer": np.full(len(flat), layer, dtype=np.int32),
        "source_feature": source.astype(np.int32),
        "target_layer": target_layer.astype(np.int32),
        "target_feature": target.astype(np.int32),
        "virtual_weight": weight,
        "era": (weight * strength * tokens / N_COUNTED).astype(np.float32),
        "twera": (weight * strength * together * rng.random(len(flat))).astype(np.float32),
        "coactivation": tokens / N_COUNTED,
    }


def neighbours(traits, layer, *, seed):
    """Columns of table feature_neighbours of one layer: N_NEIGHBOURS others of falling cosine, which is one number of a pair of features."""
    rng, n = np.random.default_rng([seed, 5, layer]), traits.count.shape[1]
    others = (np.arange(n)[:, None] + rng.integers(1, n, (n, N_NEIGHBOURS + 3))) % n  # never itself
    kept = first_distinct(others, N_NEIGHBOURS)
    n_kept = kept.sum(axis=1)
    rank = np.broadcast_to(np.arange(N_NEIGHBOURS), (n, N_NEIGHBOURS))[np.arange(N_NEIGHBOURS) < n_kept[:, None]]
    feature, others = np.repeat(np.arange(n), n_kept), others[kept]
    pair = np.minimum(feature, others) * n + np.maximum(feature, others)
    cosine = (pair * 2_654_435_761 % 2**32 / 2**32).astype(np.float32) ** 2
    order = np.lexsort((-cosine, feature))
    return {
        "layer": np.full(len(rank), layer, dtype=np.int32),
        "feature": feature.astype(np.int32),
        "rank": rank.astype(np.int32),
        "neighbour": others[order].astype(np.int32),
        "cosine": cosine[order],
    }
