"""One streaming pass over text: what every feature does. Reads: model, dictionary, text.

Features are silent at tokens that are not ordinary: these are in windows, but no peak, and count nowhere.
Writes: `tables/features`, `tables/windows`, `tables/feature_edges`, `tables/feature_neighbours` and, where the spec asks for them,
`tables/feature_labels` and `tables/input_edges` (one part per layer), `tables/pullback_overlaps`, `tables/harvested_text` (the sequences that have
a window), and for the stage explain `pool.parquet` (random windows) and `pool_activations.parquet` (all activations on them).

The text is cut into stretches, which any number of processes share. What is found in a stretch becomes one file (`parts`); a killed pass
goes on from there, in any number of processes and with any size of batches, to the same bytes.
"""

import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from cltdb import log
from cltdb.activations.ordinary import COUNTS_FILE, token_counts
from cltdb.engine.stage import ALONE
from cltdb.engine.workspace import write_json, write_parquet, write_parquet_groups
from cltdb.errors import CltdbError
from cltdb.harvest import tables
from cltdb.harvest.candidates import Candidates, Kept, Peaks
from cltdb.harvest.chosen_tokens import ChosenTokens, Firings
from cltdb.harvest.coactivation import choose_tokens
from cltdb.harvest.feature_edges import feature_edges
from cltdb.harvest.hashing import extended, hash64
from cltdb.harvest.head_edges import head_edges, merged
from cltdb.harvest.input_edges import input_edges
from cltdb.harvest.labels import LabelCounts, Profiles, TextLabels
from cltdb.harvest.lens import chosen_tokens
from cltdb.harvest.overlap import pullback_overlaps
from cltdb.harvest.parts import FOLDER, Found, parts, unseen, write_part
from cltdb.harvest.statistics import RunningStatistics
from cltdb.harvest.windows import choose_pool, consecutive, document_spans, peaks, window_around
from cltdb.model.fit import check_fits

logger = logging.getLogger(__name__)
STRETCHES = 32  # of the text at most, unless they get too large: what processes share out, and a killed pass does not repeat
STRETCH_BYTES = 2**28  # held in memory of a stretch of text: candidates for contexts, firings at chosen tokens
FEATURES_AT_ONCE = 1024  # whose contexts and pool activations are put together at once: a row group of the files
TOKENS_FOR_DEAD = 200_000


def harvest(settings, lm, dictionary, sequences, *, directory, dict_id, seed, share=ALONE):
    """Fills `directory`; what earlier, killed passes left there is taken up.

    settings: section `Harvest`. Of share.world_size > 1 processes, which may run at once or one after another, process `rank` sees stretches
    rank, rank + world_size, … of the text and leaves what it found there; a process alone sees what no other has seen, puts all together
    and writes the tables.
    """
    directory = Path(directory)
    check_fits(dictionary, lm)
    if not (directory / tables.POOL_ACTIVATIONS).is_file():
        lens_tokens = chosen_tokens(lm, settings.lens_tokens, where="harvest.lens_tokens")
        pool = choose_pool(sequences, n_windows=settings.pool_windows, window=settings.window, seed=seed)
        n_counted = settings.coactivation_tokens if settings.feature_edges else 0
        counted = choose_tokens(sequences, n_tokens=n_counted, seed=seed)
        state = HarvestPass(settings, dictionary, sequences, pool=pool, counted=counted, seed=seed)
        see_text(lm, state, directory, batch_seqs=settings.batch_seqs, share=share)
        if share.world_size > 1:
            return
        found = Found(directory, len(sequences))
        labels = _write_labels(dictionary, state.labels, found, directory=directory, dict_id=dict_id) if state.labels else {}
        text = tables.WindowedText(settings, sequences, dict_id=dict_id)
        fired = _write_features(lm, dictionary, text, found, directory=directory, lens_tokens=lens_tokens, labels=labels)
        _write_weights(settings, lm, dictionary, found, directory=directory, dict_id=dict_id, n_counted=len(counted), fired=fired)
        if settings.pullback_overlap and not dictionary.reconstructs:
            rows = pullback_overlaps(settings, lm, dictionary, sequences, fired=fired, dict_id=dict_id, seed=seed)
            write_parquet(directory / "tables/pullback_overlaps/overlaps.parquet", rows)
        write_json(directory / COUNTS_FILE, token_counts(sequences))
        for layer in dictionary.layers:
            rows = tables.neighbours(dictionary, layer, dict_id=dict_id)
            write_parquet(directory / f"tables/feature_neighbours/layer-{layer:02d}.parquet", rows)
        write_parquet(directory / tables.POOL, tables.pool(pool, sequences))
        tokens = tables.PoolTokens(pool, sequences)
        rows = (tokens.rows(found, layer, features) for layer in dictionary.layers for features in _ranges(dictionary.n_features))
        write_parquet_groups(directory / tables.POOL_ACTIVATIONS, rows)
    shutil.rmtree(directory / FOLDER, ignore_errors=True)


def _write_weights(settings, lm, dictionary, found, *, directory, dict_id, n_counted, fired):
    """Writes the tables `feature_edges` and `input_edges`, as far as the settings ask for them. fired {layer: [n_features]}: how often each
    feature fires."""
    written, named = {}, {"dict_id": dict_id, "live": {layer: count > 0 for layer, count in fired.items()}}
    if not dictionary.reconstructs:  # no weight of an SAE says what its layer's MLP does between two features
        direct = {}
        if settings.feature_edges:
            direct = feature_edges(lm, dictionary, found, n_kept=settings.feature_edges, n_counted=n_counted, **named)
        through_heads = head_edges(lm, dictionary, n_kept=settings.head_edges, **named) if settings.head_edges else {}
        written["feature_edges"] = direct | {layer: merged(direct.get(layer), rows) for layer, rows in through_heads.items()}
    if settings.input_edges:
        written["input_edges"] = input_edges(lm, dictionary, n_kept=settings.input_edges, **named)
    for table, by_layer in written.items():
        for layer, rows in by_layer.items():
            write_parquet(directory / f"tables/{table}/layer-{layer:02d}.parquet", rows)


def _ranges(n_features):
    return [range(first, min(first + FEATURES_AT_ONCE, n_features)) for first in range(0, n_features, FEATURES_AT_ONCE)]


def _write_labels(dictionary, labels, found, *, directory, dict_id):
    """Writes the table `feature_labels`; returns {layer: {column of table features: array}} of what it says of each feature as a whole."""
    columns = {}
    for layer in dictionary.layers:
        ranges, parts = _ranges(dictionary.n_features), []
        path = directory / f"tables/feature_labels/layer-{layer:02d}.parquet"
        write_parquet_groups(path, (_label_rows(dict_id, layer, labels, found, features, parts) for features in ranges))
        columns[layer] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return columns


def _label_rows(dict_id, layer, labels, found, features, parts):
    profiles = Profiles.of(found.cells(layer, features, len(labels.names)), labels, features)
    parts.append(profiles.columns())
    return profiles.rows(labels, dict_id=dict_id, layer=layer, first=features.start)


def _write_features(lm, dictionary, text, found, *, directory, lens_tokens, labels):
    """Writes the tables `windows`, `features` and `harvested_text` of what was `found` in all `text`, a `WindowedText`; returns per layer how
    often each feature fires. lens_tokens: ids of the tokens whose logits are wanted of each feature; labels: what `_write_labels` returns, or {}."""
    n_tokens, fired = int(text.sequences.ordinary.sum()), {}
    if n_tokens < TOKENS_FOR_DEAD:
        logger.info("harvest: %s tokens are few to call a feature dead (at least %s)", f"{n_tokens:,}", f"{TOKENS_FOR_DEAD:,}")
    for layer in dictionary.layers:
        windows = (text.windows(layer, found.peaks(layer, features)) for features in _ranges(dictionary.n_features))
        path = directory / f"tables/windows/layer-{layer:02d}.parquet"
        write_parquet_groups(path, windows)
        statistics = found.statistics(layer, dictionary.n_features)
        fired[layer] = statistics.count
        named = {"dict_id": text.dict_id, "n_tokens": n_tokens, "lens_tokens": lens_tokens}
        rows = tables.features(lm, dictionary, layer, statistics, windows=path, **named)
        for name, values in labels.get(layer, {}).items():
            rows = rows.append_column(name, pa.array(values, from_pandas=True))  # NaN: null
        write_parquet(directory / f"tables/features/layer-{layer:02d}.parquet", rows)
    write_parquet(directory / "tables/harvested_text/sequences.parquet", text.rows())
    return fired


def see_text(lm, state, directory, *, batch_seqs, share):
    """Shows `state` the stretches of this process, less what some process has seen already, and saves what it finds there."""
    n_seqs, context = state.sequences.tokens.shape
    n_batches = -(-n_seqs // batch_seqs)
    step = batch_seqs * -(-n_batches // STRETCHES)
    mine = [range(first, min(first + step, n_seqs)) for first in range(0, n_seqs, step)][share.rank :: share.world_size]
    seen = parts(directory)
    left = [rest for stretch in mine for rest in unseen(stretch, seen)]
    total, to_do = (context * sum(map(len, stretches)) for stretches in (mine, left))
    with log.progress("harvest", total=total, unit="tokens", done=total - to_do) as bar:
        for stretch in left:
            begun = stretch.start
            for first in stretch[::batch_seqs]:
                stop = min(stretch.stop, first + batch_seqs)
                state.see(lm, first, stop)
                bar.advance((stop - first) * context)
                if stop == stretch.stop or state.n_bytes > STRETCH_BYTES:
                    write_part(directory, range(begun, stop), state.take())
                    begun = stop


class HarvestPass:
    """What is found in the present stretch of text, and what rules out candidates for contexts. seed: of the sample."""

    def __init__(self, settings, dictionary, sequences, *, pool, counted, seed):
        self.dictionary, self.sequences, self.window = dictionary, sequences, settings.window
        self.spans, self.ordinary = document_spans(sequences.documents), sequences.ordinary
        layers, n_features, kept = dictionary.layers, dictionary.n_features, Kept.of(settings)
        self.candidates = {layer: Candidates(n_features, top=kept.top, sample=kept.sample) for layer in layers}
        self.hashes = {layer: hash64(seed, layer, np.arange(n_features)) for layer in layers}
        self.pool = ChosenTokens(tables.PoolTokens(pool, sequences).places, layers)
        self.counted = ChosenTokens(counted, layers)
        self.labels = TextLabels.of(sequences)
        self.by_label = {layer: LabelCounts(self.labels) for layer in layers} if self.labels else {}
        self.statistics = {layer: RunningStatistics(n_features) for layer in layers}

    @torch.no_grad()
    def see(self, lm, first, stop):
        """Sequences first to stop - 1, of the present stretch."""
        seen = lm.run(torch.from_numpy(self.sequences.tokens[first:stop]).long(), with_logits=False)
        x = self.dictionary.read_of(seen.mlp_input, seen.mlp_output)
        text = BatchText(self, first, stop)
        for layer in self.dictionary.layers:
            dense = self.dictionary.encode_layer(x[:, :, layer].to(self.dictionary.device, self.dictionary.dtype), layer)
            self.add(layer, text, firings(dense.float().flatten(0, 1), text.ordinary))

    def add(self, layer, text, found):
        """The `Firings` of a layer in a batch of text."""
        self.statistics[layer].add(found.feature, found.activation)
        self.pool.add(layer, text.in_pool, found)
        self.counted.add(layer, text.counted, found)
        if self.by_label:
            self.by_label[layer].add(found.feature, text.first_place + found.token, found.activation)
        self._add_candidates(layer, text, *found)

    def _add_candidates(self, layer, text, token, feature, activation):
        candidates, place = self.candidates[layer], text.first_place + token
        luck = (extended(self.hashes[layer][feature], place) >> np.uint64(32)).astype(np.uint32)
        may_enter = candidates.may_enter(feature, (activation.view(np.uint32), luck))
        document = feature * text.n_documents + text.document[token]
        wanted = np.zeros(self.dictionary.n_features * text.n_documents, dtype=bool)
        wanted[document[may_enter]] = True
        rows = np.flatnonzero(wanted[document])  # only firings in the same document decide which ones are peaks
        apart = feature[rows] * text.size + text.apart[token[rows]]
        order = np.argsort(apart)
        rows, apart = rows[order], apart[order]
        chosen = np.flatnonzero(peaks(apart, activation[rows], window=self.window) & may_enter[rows])
        peak = rows[chosen]
        begin = apart[chosen] - text.before[token[peak]]
        low, high = np.searchsorted(apart, begin), np.searchsorted(apart, begin + text.length[token[peak]])
        entries, n_entries = consecutive(low, high - low), high - low
        offset = (apart[entries] - np.repeat(begin, n_entries)).astype(np.uint16)
        columns = (feature[peak].astype(np.int32), place[peak], activation[peak], luck[peak])
        candidates.add(Peaks(*columns, np.cumsum(n_entries), offset, activation[rows[entries]]))

    @property
    def n_bytes(self):
        """In memory of the present stretch, beside what does not grow."""
        by_layer = *self.candidates.values(), *self.by_label.values()
        return self.pool.n_bytes + self.counted.n_bytes + sum(one.n_bytes for one in by_layer)

    def take(self):
        """What was found in the stretch, {layer: {kind: {column: array}}}; the next one begins."""
        found = {}
        for layer, candidates in self.candidates.items():
            kinds = {
                "peaks": candidates.take()._asdict(),
                "pool": self.pool.take_by_feature(layer)._asdict(),
                "counted": self.counted.take(layer)._asdict(),
            }
            if self.by_label:
                kinds["labels"] = self.by_label[layer].take()._asdict()
            found[layer] = {"statistics": self.statistics[layer].columns(), **kinds}
            self.statistics[layer] = RunningStatistics(self.dictionary.n_features)
        return found


class BatchText:
    """Of each token of a batch, [n_tokens]: whether it is ordinary; its number among the pool's and among the counted tokens, -1: none;
    `document`: the number in the batch of the part of a document that it is in; `before`, `length`: of the window around it, the tokens
    before it and all. `apart`: its place in the batch, where documents are a window apart from each other. size: the end of all places."""

    def __init__(self, state, first, stop):
        context = state.sequences.tokens.shape[1]
        self.first_place, n_tokens = first * context, (stop - first) * context
        self.ordinary = state.ordinary[first:stop].ravel()
        self.in_pool, self.counted = (
            chosen.index(self.first_place, self.first_place + n_tokens) for chosen in (state.pool, state.counted)
        )
        position, (start, end) = np.arange(n_tokens) % context, (span[first:stop].ravel() for span in state.spans)
        self.document = np.cumsum(position == start) - 1
        self.n_documents = int(self.document[-1]) + 1
        self.apart, self.size = np.arange(n_tokens) + state.window * self.document, n_tokens + state.window * self.n_documents
        begin, self.length = window_around(position, start=start, stop=end, window=state.window)
        self.before = position - begin


def firings(dense, ordinary):
    """dense [n_tokens, n_features], activations, to their `Firings` at ordinary tokens, by token, then feature."""
    n_features = dense.shape[1]
    if dense.device.type != "cpu":
        place = (~(dense <= 0)).flatten().nonzero()[:, 0]  # finds NaN too
        place, activation = place.cpu().numpy(), dense.flatten()[place].cpu().numpy()
    else:
        flat = dense.numpy().ravel()
        place = np.flatnonzero(~(flat <= 0))
        activation = flat[place]
    token = place // n_features
    rows = np.flatnonzero(ordinary[token])
    found = Firings(token[rows], (place - token * n_features)[rows], activation[rows])
    if not np.isfinite(found.activation.max(initial=0)):
        row = np.flatnonzero(~np.isfinite(found.activation))[0]
        raise CltdbError(
            "harvest",
            found=f"the activation {found.activation[row]} of feature {found.feature[row]}",
            expected="finite activations",
            do="check the dictionary: stage evaluate gives its errors per layer; a model in float16 may overflow, so set model.dtype",
        )
    return found
