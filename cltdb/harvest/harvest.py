"""One streaming pass over text: what every feature does. Reads: model, dictionary, text.

Features are silent at tokens that are not ordinary: these are in windows, but no peak, and count nowhere.
Writes: `tables/features`, `tables/windows`, `tables/feature_edges` (one part per layer), `tables/harvested_text` (the sequences that have
a window), and for the stage explain `pool.parquet`
(random windows), `pool_activations.parquet` (all activations on them) and `neighbours.parquet` (features with similar decoders).

The text is cut into segments. Any number of processes share them, each with its own checkpoint of what it knows so far; a killed pass
goes on from there, in any number of processes, to the same bytes.
"""

import logging
import shutil
from pathlib import Path

import numpy as np
import torch

from cltdb import log
from cltdb.activations.ordinary import COUNTS_FILE, token_counts
from cltdb.engine.stage import ALONE
from cltdb.engine.workspace import write_json, write_parquet, write_safetensors
from cltdb.harvest import tables
from cltdb.harvest.best_contexts import BestContexts
from cltdb.harvest.coactivation import FIRING_PARTS, CountedFirings, choose_tokens
from cltdb.harvest.feature_edges import feature_edges
from cltdb.harvest.hashing import hash_uniform
from cltdb.harvest.statistics import RunningStatistics
from cltdb.harvest.windows import choose_pool, document_spans, peaks, window_around
from cltdb.model.fit import check_fits

logger = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"
SEGMENTS = 32  # of the text: what processes share out, and a killed pass does not repeat
TOKENS_FOR_DEAD = 200_000


def harvest(settings, lm, dictionary, sequences, *, directory, dict_id, seed, share=ALONE):
    """Fills `directory`; what earlier, killed passes left there is taken up.

    settings: section `Harvest`. Of share.world_size > 1 processes, which may run at once or one after another, process `rank` sees segments
    rank, rank + world_size, … of the text and leaves what it knows of them; a process alone sees what no other has seen, puts all together
    and writes the tables.
    """
    directory = Path(directory)
    check_fits(dictionary, lm)
    if not (directory / tables.POOL_ACTIVATIONS).is_file():
        pool = choose_pool(sequences, n_windows=settings.pool_windows, window=settings.window, seed=seed)
        n_counted = settings.coactivation_tokens if settings.feature_edges else 0
        counted = choose_tokens(sequences, n_tokens=n_counted, seed=seed)
        state = HarvestPass(
            dictionary,
            sequences,
            pool=pool,
            counted=counted,
            top=settings.top,
            reservoir=settings.top + settings.per_quantile * settings.n_quantiles,
            window=settings.window,
            seed=seed,
        )
        _see_segments(lm, state, directory, batch_seqs=settings.batch_seqs, share=share)
        if share.world_size > 1:
            return
        for path in set(_checkpoints(directory)) - {_checkpoint(directory, share.rank)}:
            state.absorb(path)
        _write_features(settings, lm, dictionary, state, directory=directory, dict_id=dict_id)
        if settings.feature_edges:
            live = {layer: state.statistics[layer].count > 0 for layer in dictionary.layers}
            kept = {"n_kept": settings.feature_edges, "n_counted": len(counted)}
            edges = feature_edges(lm, dictionary, directory, dict_id=dict_id, live=live, **kept)
            for layer, rows in edges.items():
                write_parquet(directory / f"tables/feature_edges/layer-{layer:02d}.parquet", rows)
        write_json(directory / COUNTS_FILE, token_counts(sequences))
        write_parquet(directory / tables.NEIGHBOURS, tables.neighbours(dictionary))
        write_parquet(directory / tables.POOL, tables.pool(pool, sequences))
        tables.merge_pool_activations(directory, layers=dictionary.layers)
    for folder in (CHECKPOINTS, tables.POOL_PARTS, FIRING_PARTS):
        shutil.rmtree(directory / folder, ignore_errors=True)


def _write_features(settings, lm, dictionary, state, *, directory, dict_id):
    """Writes the tables `windows`, `features` and `harvested_text` of a `HarvestPass` that has seen all text."""
    n_tokens = int(state.ordinary.sum())
    if n_tokens < TOKENS_FOR_DEAD:
        logger.info("harvest: %s tokens are few to call a feature dead (at least %s)", f"{n_tokens:,}", f"{TOKENS_FOR_DEAD:,}")
    sampled = {"n_quantiles": settings.n_quantiles, "per_quantile": settings.per_quantile}
    has_window = np.zeros(len(state.sequences), dtype=bool)
    for layer in dictionary.layers:
        windows = tables.windows(state, layer, dict_id=dict_id, **sampled)
        write_parquet(directory / f"tables/windows/layer-{layer:02d}.parquet", windows)
        has_window[windows["sequence"].to_numpy()] = True
        named = {"windows": windows, "dict_id": dict_id, "n_tokens": n_tokens}
        rows = tables.features(lm, dictionary, layer, state.statistics[layer], **named)
        write_parquet(directory / f"tables/features/layer-{layer:02d}.parquet", rows)
    text = tables.harvested_text(state.sequences, np.flatnonzero(has_window), dict_id=dict_id)
    write_parquet(directory / "tables/harvested_text/sequences.parquet", text)


def _see_segments(lm, state, directory, *, batch_seqs, share):
    """Shows `state` those segments of this process that no process has seen, after what its own checkpoint holds."""
    own = _checkpoint(directory, share.rank)
    if own.is_file():
        state.absorb(own)
    seen = {number for path in _checkpoints(directory) for number in _seen_segments(path)}
    n_seqs, context = state.sequences.tokens.shape
    n_segments = min(SEGMENTS, n_seqs)
    chosen = range(share.rank, n_segments, share.world_size)
    mine = {n: range(n * n_seqs // n_segments, (n + 1) * n_seqs // n_segments) for n in chosen}
    left = {number: segment for number, segment in mine.items() if number not in seen}
    total, to_do = (context * sum(map(len, segments.values())) for segments in (mine, left))
    with log.progress("harvest", total=total, unit="tokens", done=total - to_do) as bar:
        for number, segment in left.items():
            for first in segment[::batch_seqs]:
                stop = min(segment.stop, first + batch_seqs)
                state.see(lm, first, stop)
                bar.advance((stop - first) * context)
            state.save(directory, own, segment=number)


def _checkpoint(directory, rank):
    return directory / CHECKPOINTS / f"{rank:04d}.safetensors"


def _checkpoints(directory):
    return sorted((directory / CHECKPOINTS).glob("*.safetensors"))


def _seen_segments(path):
    """The numbers of the segments that a checkpoint tells of."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return [int(number) for number in file.metadata()["segments"].split()]


class HarvestPass:
    """All that a process keeps of the `segments` it has seen: per layer statistics, top contexts and a uniform sample of contexts; of
    the present segment pool activations and firings at the `counted` tokens."""

    def __init__(self, dictionary, sequences, *, pool, counted, top, reservoir, window, seed):
        self.dictionary, self.sequences, self.pool, self.window, self.seed = dictionary, sequences, pool, window, seed
        self.segments = []
        self.spans, self.ordinary = document_spans(sequences.documents), sequences.ordinary
        layers = range(dictionary.n_layers)
        self.statistics = [RunningStatistics(dictionary.n_features) for _ in layers]
        self.top = [BestContexts(dictionary.n_features, capacity=top, window=window) for _ in layers]
        self.sample = [BestContexts(dictionary.n_features, capacity=reservoir, window=window) for _ in layers]
        self.pool_rows, self.firings = [], CountedFirings(counted)

    @torch.no_grad()
    def see(self, lm, first, stop):
        """Sequences first to stop - 1, of the present segment."""
        x = lm.run(torch.from_numpy(self.sequences.tokens[first:stop]).long(), with_logits=False).mlp_input
        start, end = (span[first:stop] for span in self.spans)
        silent = torch.from_numpy(~self.ordinary[first:stop]).to(self.dictionary.device)
        expanded = self._pool_places(first, stop)
        counted = self.firings.index(*(self.sequences.tokens.shape[1] * sequence for sequence in (first, stop)))
        for layer in self.dictionary.layers:
            dense = self.dictionary.encode_layer(x[:, :, layer].to(self.dictionary.device, self.dictionary.dtype), layer).float()
            dense[silent] = 0
            dense = dense.flatten(0, 1)
            flat, feature = (index.cpu().numpy() for index in dense.nonzero(as_tuple=True))
            activation = dense[dense != 0].cpu().numpy()
            self.statistics[layer].add(feature, activation)
            self._keep_contexts(layer, dense, feature, flat, activation, start=start, stop=end, first=first)
            self.pool_rows.append(_pool_rows(layer, expanded, feature, flat, activation, n_tokens=len(dense)))
            self.firings.add(layer, counted, feature, flat, activation)

    def _keep_contexts(self, layer, dense, feature, flat, activation, *, start, stop, first):
        """Offers the batch's peaks to the top contexts and to the sample."""
        context = start.shape[1]
        base = flat // context * context
        chosen = peaks(feature, flat, activation, document_start=base + start.ravel()[flat], window=self.window)
        feature, flat, activation, base = feature[chosen], flat[chosen], activation[chosen], base[chosen]
        begin, length = window_around(flat - base, start=start.ravel()[flat], stop=stop.ravel()[flat], window=self.window)
        place = first * context + flat
        for kept, priority in (
            (self.top[layer], activation.astype(np.float64)),
            (self.sample[layer], hash_uniform(self.seed, layer, feature, place)),
        ):
            enters = np.nonzero(kept.would_enter(feature, priority, place))[0]
            values = _window_values(dense, feature[enters], (base + begin)[enters], length[enters], self.window)
            is_maximum = (
                values.max(axis=1, initial=0) <= activation[enters]
            )  # of its own window, so that a context says its maximum
            enters, values = enters[is_maximum], values[is_maximum]
            kept.add(
                feature[enters],
                priority[enters],
                place=place[enters],
                start=begin[enters],
                length=length[enters],
                peak=activation[enters],
                activations=values,
            )

    def _pool_places(self, first, stop):
        """(window_id, offset, flat position in the batch) of every token of the pool windows in these sequences."""
        low, high = np.searchsorted(self.pool.sequence, [first, stop])
        length = self.pool.length[low:high]
        window_id = np.repeat(np.arange(low, high), length)
        offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        context = self.sequences.tokens.shape[1]
        return window_id, offset, (self.pool.sequence[window_id] - first) * context + self.pool.start[window_id] + offset

    def parts(self):
        """(name, what is kept of a layer) of everything a checkpoint holds; pool activations and counted firings are files of their own."""
        kinds = {"statistics": self.statistics, "top": self.top, "sample": self.sample}
        return [(f"{kind}.{layer}", part) for kind, parts in kinds.items() for layer, part in enumerate(parts)]

    def save(self, directory, path, *, segment):
        """Writes what is kept, the present segment's included, to the checkpoint `path`, after the segment's own files."""
        tables.write_pool_part(directory, segment, self.pool_rows)
        self.pool_rows = []
        self.firings.save(directory, segment)
        self.segments.append(segment)
        tensors = {
            f"{name}.{field}": torch.from_numpy(getattr(part, field)) for name, part in self.parts() for field in part.FIELDS
        }
        write_safetensors(path, tensors, {"segments": " ".join(map(str, self.segments))})

    def absorb(self, path):
        """Adds what a checkpoint holds of other segments."""
        from safetensors import safe_open

        self.segments += _seen_segments(path)
        with safe_open(path, framework="np") as file:
            for name, part in self.parts():
                part.absorb(*(file.get_tensor(f"{name}.{field}") for field in part.FIELDS))


def _window_values(dense, feature, first, length, window):
    """dense [tokens, n_features] to the feature's activations [n, window] over flat positions `first` on, zero from `length`
    on."""
    offsets = np.arange(window)
    places = torch.from_numpy(np.minimum(first[:, None] + offsets, len(dense) - 1)).to(dense.device)
    values = dense[places, torch.from_numpy(feature).to(dense.device)[:, None]].cpu().numpy()
    return np.where(offsets < length[:, None], values, np.float32(0))


def _pool_rows(layer, expanded, feature, flat, activation, *, n_tokens):
    """Columns layer, feature, window_id, offset, activation: the firings (sorted by flat) at the tokens of pool windows."""
    window_id, offset, place = expanded
    count = np.bincount(flat, minlength=n_tokens)
    begin = np.cumsum(count) - count
    n = count[place]
    source = np.repeat(begin[place] - (np.cumsum(n) - n), n) + np.arange(n.sum())
    columns = (np.full(len(source), layer), feature[source], np.repeat(window_id, n), np.repeat(offset, n))
    return (*(column.astype(np.int32) for column in columns), activation[source])
