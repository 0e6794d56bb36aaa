"""Feature pages as JSON, for the frontends that draw graphs (graph_json.py).

Reads: tables features, contexts, vocabulary. Writes: `features/{scan}/{Cantor pair}.json`, one file per feature; or packed, as circuit-tracer
has them on the Hub, `features/index.json.gz` with a file name and byte offsets per layer and `features/layer_{n}.bin`.

Fields as in circuit-tracer's files. `quantile_values` are of the sampled windows' peaks: the lowest of each band, and the highest of all.
`histogram` counts these peaks in BINS equal parts from act_min to act_max, because harvest keeps a sample of a feature's activations and
not all of them. A feature without sampled windows has the histogram of its top ones.
"""

import gzip
import json
import math
from pathlib import Path

from cltdb.database.api import Database
from cltdb.engine.workspace import read_json, write_json, writing
from cltdb.errors import CltdbError
from cltdb.interchange.feature_numbers import cantor_pair
from cltdb.interchange.graph_json import scan_of
from cltdb.log import progress

BATCH_FEATURES = 500
TOP = "Top activations"
BINS = 20
"""Of the histogram of a feature's activations."""


def write_features(database, dict_id, features, folder, *, scan):
    """Writes `{folder}/features/{scan}/{Cantor pair}.json` for each (layer, feature); returns how many the database has."""
    target, written = Path(folder) / "features" / scan, 0
    for layer, some in _batches(features):
        for page in feature_pages(database, dict_id, layer, some):
            path = target / f"{cantor_pair(layer, page['index'])}.json"
            if path.is_file() and (other := read_json(path).get("transcoder_id")) != dict_id:
                raise CltdbError(
                    str(path),
                    found=f"a feature of {other}",
                    expected=f"none, or one of {dict_id}",
                    do="choose another folder, or another name with --scan",
                )
            write_json(path, page, indent=None)
            written += 1
    return written


def write_graph_features(database, graph, folder, *, scan=None):
    """Writes the features of a `graph_json.StoredGraph`'s kept nodes beside it; returns how many: none where its dictionary is not known
    or the frontend takes packed ones."""
    name = scan_of(graph.facts["model_id"], scan)
    if graph.facts["dict_id"] is None or name.startswith("/"):
        return 0
    features = graph.pruned.nodes.filter(kind="feature").select("layer", "feature").rows()
    return write_features(database, graph.facts["dict_id"], features, folder, scan=name)


def export_dictionary(database, dict_id, folder, *, scan=None, packed=False):
    """Writes every harvested feature of a dictionary; returns how many."""
    db = Database(database)
    known = {row["dict_id"]: row for row in db.dictionaries().to_dicts()}
    if dict_id not in known:
        raise CltdbError(
            "cltdb export feature-json",
            found=repr(dict_id),
            expected=f"one of {', '.join(known) or 'no dictionary yet'}",
            do="list them with: cltdb sql 'SELECT dict_id FROM dictionaries'",
        )
    features = db.sql("SELECT layer, feature FROM features WHERE dict_id = $d ORDER BY ALL", {"d": dict_id}).rows()
    if not features:
        raise CltdbError(dict_id, found="no features", expected="those of stage harvest", do="run the stage harvest")
    if packed:
        _write_packed(database, known[dict_id], features, Path(folder) / "features")
        return len(features)
    return write_features(database, dict_id, features, folder, scan=scan_of(known[dict_id]["model_id"], scan))


def feature_pages(database, dict_id, layer, features):
    """The JSON value of each of a layer's features that the database has, by index."""
    chosen, windows = {"dict_id": dict_id, "layer": layer, "features": list(features)}, {}
    with Database(database).session() as db:
        found, pages = db.query("feature_windows", **chosen), db.query("feature_pages", **chosen).to_dicts()
    for row in found.iter_rows(named=True):
        windows.setdefault(row["feature"], {}).setdefault(row["band"], []).append(row)
    return [_page(row, windows.get(row["feature"], {}), dict_id, layer) for row in pages]


def _page(row, bands, dict_id, layer):
    quantiles = sorted((band for band in bands if band != "top"), key=lambda band: int(band[1:]))
    names = {"top": TOP} | {band: f"Quantile {place} of {len(quantiles)}" for place, band in enumerate(quantiles, start=1)}
    peaks = [_peaks(bands[band]) for band in quantiles]
    page = {
        "index": row["feature"],
        "layer": layer,
        "transcoder_id": dict_id,
        "examples_quantiles": [
            {"quantile_name": names[band], "examples": [_example(window) for window in windows]}
            for band, windows in bands.items()
        ],
        "top_logits": row["promoted"],
        "bottom_logits": row["suppressed"],
        "act_min": 0.0,
        "act_max": None if row["max_activation"] is None else _short(row["max_activation"]),
        "histogram": _histogram([peak for some in peaks for peak in some] or _peaks(bands.get("top", [])), row["max_activation"]),
        "quantile_values": [_short(value) for value in [*map(min, peaks), *([max(map(max, peaks))] if peaks else [])]],
        "activation_frequency": row["density"],
    }
    return {name: value for name, value in page.items() if value is not None}


def _peaks(windows):
    return [window["max_activation"] for window in windows]


def _histogram(peaks, highest):
    """How many of the peaks lie in each of BINS equal parts of 0 to `highest`, as floats."""
    counts = [0.0] * BINS
    for peak in peaks:
        counts[min(int(_short(peak) / highest * BINS), BINS - 1)] += 1
    return counts


def _example(window):
    return {
        "tokens": window["strings"],
        "tokens_acts_list": [_short(value) for value in window["activations"]],
        "train_token_ind": window["peak"],
        "is_repeated_datapoint": False,
    }


def _short(value):
    """A float32 in the digits that it has; JSON knows finite ones alone."""
    if not math.isfinite(value):
        raise CltdbError(
            "cltdb export", found=f"{value} as an activation", expected="finite numbers", do="run the stage harvest again"
        )
    return float(f"{value:.7g}") + 0.0  # no -0.0


def _batches(features):
    """(layer, at most BATCH_FEATURES of its features), in order."""
    by_layer = {}
    for layer, feature in sorted(set(features)):
        by_layer.setdefault(layer, []).append(feature)
    for layer, some in by_layer.items():
        for first in range(0, len(some), BATCH_FEATURES):
            yield layer, some[first : first + BATCH_FEATURES]


def _write_packed(database, dictionary, features, target):
    """Writes `layer_{n}.bin`, features in order, and last the index.

    A feature is the length of its gzipped JSON, 4 bytes, little-endian, and this; it stands between two offsets, equal where the
    database does not have it (as read by circuit-tracer's frontend).
    """
    dict_id, index = dictionary["dict_id"], {}
    if (target / "index.json.gz").exists() or any(target.glob("layer_*.bin")):
        raise CltdbError(str(target), found="packed features", expected="a new folder", do="choose another")
    with progress("features", total=len(features), unit="features") as bar:
        for layer in range(dictionary["n_layers"]):
            name, offsets, here = f"layer_{layer}.bin", [0], [pair for pair in features if pair[0] == layer]
            with writing(target / name) as aside, open(aside, "wb") as file:
                for _, some in _batches(here):
                    for page in feature_pages(database, dict_id, layer, some):
                        packed = gzip.compress(_encoded(page), mtime=0)
                        offsets += [offsets[-1]] * (page["index"] + 1 - len(offsets))
                        file.write(len(packed).to_bytes(4, "little") + packed)
                        offsets.append(file.tell())
                        bar.advance()
            offsets += [offsets[-1]] * (dictionary["n_features"] + 1 - len(offsets))
            index[str(layer)] = {"filename": name, "offsets": offsets}
    with writing(target / "index.json.gz") as aside:
        aside.write_bytes(gzip.compress(_encoded(index), mtime=0))


def _encoded(value):
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
