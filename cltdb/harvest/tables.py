"""What the harvest writes, as Arrow tables with the columns of the database, and the files that the stage explain reads."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cltdb.engine.workspace import PARQUET_OPTIONS, write_parquet, writing
from cltdb.harvest.statistics import QUANTILES, embedding_effects, logit_effects, similar_features

POOL, POOL_ACTIVATIONS, NEIGHBOURS, POOL_PARTS = "pool.parquet", "pool_activations.parquet", "neighbours.parquet", "pool_parts"
POOL_COLUMNS = {
    "layer": pa.int32(),
    "feature": pa.int32(),
    "window_id": pa.int32(),
    "offset": pa.int32(),
    "activation": pa.float32(),
}


def features(lm, dictionary, layer, statistics, *, windows, dict_id, n_tokens):
    """The rows of one layer of table features; windows: those of table windows."""
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
            "quantiles": _quantiles(statistics),
            "histogram": _histogram(statistics),
            "dead": pa.array(~fired),
            **_window_counts(windows, n_features),
            "top_logits": _token_values(*promoted),
            "bottom_logits": _token_values(*suppressed),
            "top_embeddings": _token_values(*driving),
            "bottom_embeddings": _token_values(*inhibiting),
        }
    )


def _window_counts(windows, n_features):
    """Of each feature how many windows it has, and from how many documents."""
    feature, document = windows["feature"].to_numpy(), windows["document"].to_numpy()
    n_documents = document.max(initial=0) + 1
    counted = {"n_contexts": feature, "n_documents": np.unique(feature * n_documents + document) // n_documents}
    return {name: pa.array(np.bincount(of, minlength=n_features).astype(np.int32)) for name, of in counted.items()}


def _quantiles(statistics):
    """`QUANTILES` of each feature's activations, none where it never fires."""
    values = statistics.quantiles(QUANTILES).astype(np.float32)
    return _lists(values.ravel()[np.repeat(statistics.count > 0, values.shape[1])], (statistics.count > 0) * values.shape[1])


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


def windows(state, layer, *, dict_id, n_quantiles, per_quantile):
    """The rows of one layer of table windows, by feature, band and rank."""
    top, sample = state.top[layer], state.sample[layer]
    top_feature, top_slot = top.ranked()
    feature, slot = sample.ranked()
    n_places = state.sequences.tokens.size
    fresh = ~np.isin(feature * n_places + sample.place[feature, slot], top_feature * n_places + top.place[top_feature, top_slot])
    feature, slot = feature[fresh], slot[fresh]
    wanted = _rank_in(feature) < n_quantiles * per_quantile
    feature, slot, band = _quantile_bands(sample, feature[wanted], slot[wanted], n_quantiles)
    top_band = np.full(len(top_feature), -1)
    parts = [
        _context_rows(state, layer, top, top_feature, top_slot, top_band),
        _context_rows(state, layer, sample, feature, slot, band),
    ]
    order = np.lexsort((np.concatenate([top_band, band]), np.concatenate([top_feature, feature])))
    table = pa.concat_tables(parts).take(pa.array(order))
    return table.add_column(0, "dict_id", pa.array([dict_id] * len(table), pa.string()))


def _rank_in(sorted_values):
    """How many equal values stand before each, in a sorted array."""
    _, first, inverse = np.unique(sorted_values, return_index=True, return_inverse=True)
    return np.arange(len(sorted_values)) - first[inverse]


def _quantile_bands(sample, feature, slot, n_quantiles):
    """The sampled contexts by feature, band and falling activation, with their band: equal shares of the sample, highest last."""
    peak = sample.peak[feature, slot]
    rising = np.lexsort((sample.place[feature, slot], peak, feature))
    feature, slot, peak = feature[rising], slot[rising], peak[rising]
    band = (
        _rank_in(feature) * n_quantiles // np.bincount(feature, minlength=1)[feature]
        if len(feature)
        else np.empty(0, dtype=np.int64)
    )
    falling = np.lexsort((sample.place[feature, slot], -peak, band, feature))
    return feature[falling], slot[falling], band[falling]


def _context_rows(state, layer, kept, feature, slot, band):
    """Rows of sorted contexts; band -1 is `top`."""
    sequences, context = state.sequences, state.sequences.tokens.shape[1]
    sequence, position = np.divmod(kept.place[feature, slot], context)
    values = kept.activations[feature, slot]
    row, offset = np.nonzero(values)
    n_active = np.bincount(row, minlength=len(feature))
    names = np.array(["top", *(f"q{index}" for index in range(band.max(initial=-1) + 1))])
    return pa.table(
        {
            "layer": pa.array(np.full(len(feature), layer, dtype=np.int32)),
            "feature": pa.array(feature.astype(np.int32)),
            "band": pa.array(names[band + 1], pa.string()),
            "rank": pa.array(_rank_in(feature * (len(names) + 1) + band + 1).astype(np.int32)),
            "document": pa.array(sequences.documents[sequence, position]),
            "sequence": pa.array(sequence),
            "start": pa.array(kept.start[feature, slot]),
            "position": pa.array(position.astype(np.int32)),
            "length": pa.array(kept.length[feature, slot]),
            "label": _labels(sequences, sequence, position),
            "offsets": _lists(offset.astype(np.uint16), n_active),
            "activations": _lists(values[row, offset], n_active),
            "max_activation": pa.array(kept.peak[feature, slot]),
            "peak_token": pa.array(sequences.tokens[sequence, position]),
        }
    )


def harvested_text(sequences, chosen, *, dict_id):
    """The rows of table harvested_text for the sequences of these numbers."""
    return pa.table(
        {
            "dict_id": pa.array([dict_id] * len(chosen), pa.string()),
            "sequence": pa.array(chosen.astype(np.int64)),
            "tokens": _rows(sequences.tokens[chosen]),
        }
    )


def _labels(sequences, sequence, position):
    """Label of each place, null where it has none."""
    codes = sequences.labels[sequence, position]
    names = np.array([*sequences.label_names, ""], dtype=object)
    return pa.array(names[codes], pa.string(), mask=codes < 0)


def _window_tokens(windows, sequences):
    place = windows.sequence * sequences.tokens.shape[1] + windows.start
    inside = np.arange(windows.length.sum()) - np.repeat(np.cumsum(windows.length) - windows.length, windows.length)
    return _lists(sequences.tokens.ravel()[np.repeat(place, windows.length) + inside], windows.length)


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


def neighbours(dictionary):
    """layer, feature, rank, neighbour (of the same layer), cosine."""
    columns = []
    for layer in dictionary.layers:
        neighbour, cosine = similar_features(dictionary, layer)
        feature, rank = np.indices(neighbour.shape, dtype=np.int32)
        columns.append(
            (np.full(neighbour.size, layer, dtype=np.int32), feature.ravel(), rank.ravel(), neighbour.ravel(), cosine.ravel())
        )
    return pa.table(
        dict(
            zip(("layer", "feature", "rank", "neighbour", "cosine"), map(np.concatenate, zip(*columns, strict=True)), strict=True)
        )
    )


# Activations on the pool: one part per segment of the text, merged at the end.


def write_pool_part(directory, segment, rows):
    """The pool activations of segment number `segment`."""
    columns = zip(*rows, strict=True)
    write_parquet(
        Path(directory) / POOL_PARTS / f"{segment:04d}.parquet",
        pa.table(
            [pa.array(np.concatenate(column), kind) for column, kind in zip(columns, POOL_COLUMNS.values(), strict=True)],
            names=list(POOL_COLUMNS),
        ),
    )


def merge_pool_activations(directory, *, layers):
    """`pool_activations.parquet` by layer, feature, window, offset; one layer in memory at a time."""
    parts = sorted((Path(directory) / POOL_PARTS).glob("*.parquet"))
    with (
        writing(Path(directory) / POOL_ACTIVATIONS) as aside,
        pq.ParquetWriter(aside, pa.schema(POOL_COLUMNS), **PARQUET_OPTIONS) as writer,
    ):
        for layer in layers:
            rows = pa.concat_tables([pq.read_table(path, filters=[("layer", "=", layer)]) for path in parts])
            order = np.lexsort([rows[name].to_numpy() for name in ("offset", "window_id", "feature")])
            writer.write_table(rows.take(pa.array(order)))
