"""What the harvest writes, as Arrow tables with the columns of the database, and the files that the stage explain reads."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cltdb.harvest.candidates import Kept, choose
from cltdb.harvest.lens import logit_lens
from cltdb.harvest.statistics import QUANTILES, embedding_effects, logit_effects, similar_features
from cltdb.harvest.windows import consecutive, document_spans, window_around

POOL, POOL_ACTIVATIONS = "pool.parquet", "pool_activations.parquet"
NEIGHBOURS = "neighbours.parquet"
"""What an earlier cltdb wrote instead of table `feature_neighbours`; it has no dict_id."""
POOL_COLUMNS = {
    "layer": pa.int32(),
    "feature": pa.int32(),
    "window_id": pa.int32(),
    "offset": pa.int32(),
    "activation": pa.float32(),
}
TOKEN_VALUES = pa.list_(pa.struct({"token": pa.int32(), "value": pa.float32()}))


def features(lm, dictionary, layer, statistics, *, windows, dict_id, n_tokens, lens_tokens):
    """The rows of one layer of table features; windows: those of table windows; lens_tokens: ids, see `_lens`."""
    n_features, fired = dictionary.n_features, statistics.count > 0
    promoted, suppressed = logit_effects(lm, dictionary, layer)
    driving, inhibiting = embedding_effects(lm, dictionary, layer)
    threshold = None if dictionary.threshold is None else dictionary.threshold[layer].float().cpu().numpy()
    return pa.table(
        {
            "dict_id": pa.array([dict_id] * n_features),
            "layer": pa.array(np.full(n_features, layer, dtype=np.int32)),
            "feature": pa.array(np.arange(n_features, dtype=np.int32)),
            "density": pa.array(statistics.count / n_tokens),
            "max_activation": pa.array(statistics.maximum),
            "mean_activation": pa.array(statistics.mean.astype(np.float32)),
            "threshold": pa.nulls(n_features, pa.float32()) if threshold is None else pa.array(threshold),
            "encoder_norm": pa.array(dictionary.W_enc[layer].float().norm(dim=-1).cpu().numpy()),
            "decoder_norms": _rows(dictionary.decoder_norms(layer).float().cpu().numpy()),
            "std_activation": pa.array(statistics.std.astype(np.float32)),
            "quantiles": _quantiles(statistics, threshold),
            "histogram": _histogram(statistics),
            "dead": pa.array(~fired),
            **_window_counts(windows, n_features),
            "top_logits": _token_values(*promoted),
            "bottom_logits": _token_values(*suppressed),
            "top_embeddings": _token_values(*driving),
            "bottom_embeddings": _token_values(*inhibiting),
            "lens_logits": _lens(lm, dictionary, layer, lens_tokens),
        }
    )


def _lens(lm, dictionary, layer, tokens):
    """What each feature writes to the logits of `tokens`, null where there are none or no such logits."""
    values = logit_lens(lm, dictionary, layer, tokens) if tokens else None
    if values is None:
        return pa.nulls(dictionary.n_features, TOKEN_VALUES)
    return _token_values(np.broadcast_to(np.array(tokens, dtype=np.int32), values.shape), values.cpu().numpy())


def _window_counts(path, n_features):
    """Of each feature how many windows a file has, and from how many documents."""
    feature, document = (column.to_numpy() for column in pq.read_table(path, columns=["feature", "document"]).columns)
    n_documents = document.max(initial=0) + 1
    counted = {"n_contexts": feature, "n_documents": np.unique(feature * n_documents + document) // n_documents}
    return {name: pa.array(np.bincount(of, minlength=n_features).astype(np.int32)) for name, of in counted.items()}


def _quantiles(statistics, threshold):
    """`QUANTILES` of each feature's activations, null where it never fires; threshold [n_features] or None."""
    values = statistics.quantiles(QUANTILES, least=threshold).astype(np.float32)
    return pc.if_else(pa.array(statistics.count > 0), _rows(values), None)


def _histogram(statistics):
    """The bins of each feature that have firings."""
    feature, low, n = statistics.bins()
    bins = pa.StructArray.from_arrays([pa.array(low), pa.array(n.astype(np.int64))], ["low", "n"])
    return _lists(bins, np.bincount(feature, minlength=len(statistics.count)))


def _lists(values, lengths):
    """Consecutive values, an array, as lists of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values)


def _rows(matrix):
    """[n, k] as n lists."""
    return _lists(np.ascontiguousarray(matrix).ravel(), np.full(len(matrix), matrix.shape[1]))


def _token_values(tokens, values):
    pairs = pa.StructArray.from_arrays([pa.array(tokens.ravel()), pa.array(values.ravel())], ["token", "value"])
    return _lists(pairs, np.full(len(tokens), tokens.shape[1]))


class WindowedText:
    """Makes the rows of tables windows and harvested_text of a text. settings: section `Harvest`."""

    def __init__(self, settings, sequences, *, dict_id):
        self.kept, self.window, self.sequences, self.dict_id = Kept.of(settings), settings.window, sequences, dict_id
        self.spans = document_spans(sequences.documents)
        self.has_window = np.zeros(len(sequences), dtype=bool)

    def windows(self, layer, peaks):
        """The rows of the features whose candidates, all there are, `peaks` are; by feature, band and rank."""
        rows, band, rank = choose(peaks, self.kept)
        peaks = peaks.take(rows)
        sequence, position = place = np.divmod(peaks.place, self.sequences.tokens.shape[1])
        self.has_window[sequence] = True
        start, length = window_around(position, start=self.spans[0][place], stop=self.spans[1][place], window=self.window)
        names = np.array(["top", *(f"q{index}" for index in range(self.kept.n_quantiles))])
        n_active = np.diff(peaks.end, prepend=0)
        return pa.table(
            {
                "dict_id": pa.array([self.dict_id] * len(rows), pa.string()),
                "layer": pa.array(np.full(len(rows), layer, dtype=np.int32)),
                "feature": pa.array(peaks.feature),
                "band": pa.array(names[band + 1], pa.string()),
                "rank": pa.array(rank.astype(np.int32)),
                "document": pa.array(self.sequences.documents[place]),
                "sequence": pa.array(sequence),
                "start": pa.array(start),
                "position": pa.array(position.astype(np.int32)),
                "length": pa.array(length),
                "label": _labels(self.sequences, *place),
                "offsets": _lists(peaks.offset, n_active),
                "activations": _lists(peaks.value, n_active),
                "max_activation": pa.array(peaks.activation),
                "peak_token": pa.array(self.sequences.tokens[place]),
            }
        )

    def rows(self):
        """The rows of the sequences that a window has come from so far."""
        chosen = np.flatnonzero(self.has_window)
        return pa.table(
            {
                "dict_id": pa.array([self.dict_id] * len(chosen), pa.string()),
                "sequence": pa.array(chosen),
                "tokens": _rows(self.sequences.tokens[chosen]),
            }
        )


def _labels(sequences, sequence, position):
    """Label of each place, null where it has none."""
    codes = sequences.labels[sequence, position]
    names = np.array([*sequences.label_names, ""], dtype=object)
    return pa.array(names[codes], pa.string(), mask=codes < 0)


def _window_tokens(windows, sequences):
    places = consecutive(windows.sequence * sequences.tokens.shape[1] + windows.start, windows.length)
    return _lists(sequences.tokens.ravel()[places], windows.length)


def pool(windows, sequences):
    """The random windows: window_id, document, sequence, start, label, tokens."""
    place = (windows.sequence, windows.start)
    return pa.table(
        {
            "window_id": pa.array(np.arange(len(windows.start), dtype=np.int32)),
            "document": pa.array(sequences.documents[place]),
            "sequence": pa.array(windows.sequence),
            "start": pa.array(windows.start),
            "label": _labels(sequences, *place),
            "tokens": _window_tokens(windows, sequences),
        }
    )


def neighbours(dictionary, layer, *, dict_id):
    """Rows of table `feature_neighbours`: the features of a layer whose decoder vectors are most similar."""
    neighbour, cosine = similar_features(dictionary, layer)
    feature, rank = np.indices(neighbour.shape, dtype=np.int32)
    columns = [np.full(neighbour.shape, layer, dtype=np.int32), feature, rank, neighbour, cosine]
    rows = pa.table([column.ravel() for column in columns], names=["layer", "feature", "rank", "neighbour", "cosine"])
    return rows.add_column(0, "dict_id", pa.repeat(dict_id, rows.num_rows))


class PoolTokens:
    """The tokens of the pool's windows. places: sequence * context + position of each one, once."""

    def __init__(self, windows, sequences):
        places = consecutive(windows.sequence * sequences.tokens.shape[1] + windows.start, windows.length)
        self.window, self.offset = (
            np.repeat(np.arange(len(windows.start)), windows.length),
            consecutive(0 * windows.length, windows.length),
        )
        self.places, token, self.n_windows = np.unique(places, return_inverse=True, return_counts=True)
        self.entries = np.argsort(token, kind="stable")  # places in window order, by token
        self.begin = np.cumsum(self.n_windows) - self.n_windows

    def rows(self, found, layer, features):
        """The rows of pool_activations of a range of features, by feature, window and offset."""
        firings = found.firings(layer, "pool", features)
        n_windows = self.n_windows[firings.token]
        entry = self.entries[consecutive(self.begin[firings.token], n_windows)]
        feature, activation = np.repeat(firings.feature, n_windows), np.repeat(firings.activation, n_windows)
        order = np.argsort(feature * np.int64(len(self.window)) + entry)
        columns = (
            np.full(len(order), layer),
            feature[order],
            self.window[entry[order]],
            self.offset[entry[order]],
            activation[order],
        )
        return pa.table(
            [pa.array(column, kind) for column, kind in zip(columns, POOL_COLUMNS.values(), strict=True)],
            names=list(POOL_COLUMNS),
        )
