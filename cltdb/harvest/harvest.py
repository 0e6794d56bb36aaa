"""One streaming pass over text: what every feature does. Reads: model, dictionary, text.

Writes: `tables/features`, `tables/contexts`, `tables/feature_edges` (one part per layer), and for the stage explain `pool.parquet`
(random windows), `pool_activations.parquet` (all activations on them) and `neighbours.parquet` (features with similar decoders). What
is known so far is checkpointed; a killed pass goes on from there to the same bytes.
"""

import logging
import shutil
from pathlib import Path

import numpy as np
import torch

from cltdb import log
from cltdb.harvest import tables
from cltdb.harvest.best_contexts import BestContexts
from cltdb.harvest.coactivation import FIRING_PARTS, CountedFirings, choose_tokens
from cltdb.harvest.feature_edges import feature_edges
from cltdb.harvest.hashing import hash_uniform
from cltdb.harvest.statistics import RunningStatistics
from cltdb.harvest.windows import choose_pool, document_spans, peaks, window_around
from cltdb.model.transcoder import check_fits
from cltdb.workspace import write_parquet, write_safetensors

logger = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.safetensors"
CHECKPOINTS_PER_PASS = 20
TOKENS_FOR_DEAD = 200_000


def harvest(
    lm,
    dictionary,
    sequences,
    *,
    directory,
    dict_id,
    top,
    per_quantile,
    n_quantiles,
    window,
    pool_windows,
    n_edges,
    coactivation_tokens,
    batch_seqs,
    seed,
):
    """Fills `directory`; what an earlier, killed pass left there is taken up.

    top: contexts of highest activation per feature; per_quantile, n_quantiles: contexts sampled from each quantile of its
    activations; window: tokens per context; pool_windows: random windows of the text; n_edges: edges to other features that are kept per
    feature; coactivation_tokens: random tokens over which their co-activation is summed.
    """
    directory = Path(directory)
    check_fits(dictionary, lm)
    if not (directory / tables.POOL_ACTIVATIONS).is_file():
        pool = choose_pool(sequences.documents, n_windows=pool_windows, window=window, seed=seed)
        counted = choose_tokens(sequences.tokens.shape, n_tokens=coactivation_tokens if n_edges else 0, seed=seed)
        reservoir = top + per_quantile * n_quantiles
        state = HarvestPass(
            dictionary, sequences, pool=pool, counted=counted, top=top, reservoir=reservoir, window=window, seed=seed
        )
        _stream(lm, state, directory, batch_seqs=batch_seqs)
        n_tokens = sequences.tokens.size - len(sequences)
        if n_tokens < TOKENS_FOR_DEAD:
            logger.info(
                "harvest: %s tokens are few to call a feature dead (at least %s)", f"{n_tokens:,}", f"{TOKENS_FOR_DEAD:,}"
            )
        for layer in dictionary.layers:
            write_parquet(
                directory / f"tables/features/layer-{layer:02d}.parquet",
                tables.features(lm, dictionary, layer, state.statistics[layer], dict_id=dict_id, n_tokens=n_tokens),
            )
            write_parquet(
                directory / f"tables/contexts/layer-{layer:02d}.parquet",
                tables.contexts(state, layer, dict_id=dict_id, n_quantiles=n_quantiles, per_quantile=per_quantile),
            )
        if n_edges:
            live = {layer: state.statistics[layer].count > 0 for layer in dictionary.layers}
            edges = feature_edges(lm, dictionary, directory, dict_id=dict_id, n_kept=n_edges, n_counted=len(counted), live=live)
            for layer, rows in edges.items():
                write_parquet(directory / f"tables/feature_edges/layer-{layer:02d}.parquet", rows)
        write_parquet(directory / tables.NEIGHBOURS, tables.neighbours(dictionary))
        write_parquet(directory / tables.POOL, tables.pool(pool, sequences))
        tables.merge_pool_activations(directory, layers=dictionary.layers)
    _remove_parts(directory)
    (directory / CHECKPOINT).unlink(missing_ok=True)


def _stream(lm, state, directory, *, batch_seqs):
    """Shows all sequences to `state`, from where its checkpoint stands."""
    n_seqs, context = state.sequences.tokens.shape
    every = max(1, -(-n_seqs // batch_seqs) // CHECKPOINTS_PER_PASS)
    state.load(directory)
    with log.progress("harvest", total=n_seqs * context, unit="tokens", done=state.done * context) as bar:
        for index, first in enumerate(range(state.done, n_seqs, batch_seqs)):
            stop = min(n_seqs, first + batch_seqs)
            state.see(lm, first, stop)
            bar.advance((stop - first) * context)
            if (index + 1) % every == 0 or stop == n_seqs:
                state.save(directory)


class HarvestPass:
    """All that is kept during the pass: per layer statistics, top contexts and a uniform sample of contexts; pool activations; firings at
    the `counted` tokens."""

    def __init__(self, dictionary, sequences, *, pool, counted, top, reservoir, window, seed):
        self.dictionary, self.sequences, self.pool, self.window, self.seed, self.done = (
            dictionary,
            sequences,
            pool,
            window,
            seed,
            0,
        )
        self.spans = document_spans(sequences.documents)
        layers = range(dictionary.n_layers)
        self.statistics = [RunningStatistics(dictionary.n_features) for _ in layers]
        self.top = [BestContexts(dictionary.n_features, capacity=top, window=window) for _ in layers]
        self.sample = [BestContexts(dictionary.n_features, capacity=reservoir, window=window) for _ in layers]
        self.pool_rows, self.firings = [], CountedFirings(counted)

    @torch.no_grad()
    def see(self, lm, first, stop):
        """Sequences first to stop - 1."""
        x = lm.run(torch.from_numpy(self.sequences.tokens[first:stop]).long(), with_logits=False).mlp_input
        start, end = (span[first:stop] for span in self.spans)
        expanded = self._pool_places(first, stop)
        counted = self.firings.index(*(self.sequences.tokens.shape[1] * sequence for sequence in (first, stop)))
        for layer in self.dictionary.layers:
            dense = self.dictionary.encode_layer(x[:, :, layer].to(self.dictionary.device, self.dictionary.dtype), layer).float()
            dense[:, 0] = 0  # position 0 is excluded everywhere
            dense = dense.flatten(0, 1)
            flat, feature = (index.cpu().numpy() for index in dense.nonzero(as_tuple=True))
            activation = dense[dense != 0].cpu().numpy()
            self.statistics[layer].add(feature, activation)
            self._keep_contexts(layer, dense, feature, flat, activation, start=start, stop=end, first=first)
            self.pool_rows.append(_pool_rows(layer, expanded, feature, flat, activation, n_tokens=len(dense)))
            self.firings.add(layer, counted, feature, flat, activation)
        self.done = stop

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
            enters = np.nonzero(kept.would_enter(feature, priority))[0]
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

    def tensors(self):
        """Everything a checkpoint holds, by name; pool activations and counted firings are files of their own."""
        kinds = {"statistics": self.statistics, "top": self.top, "sample": self.sample}
        return {
            f"{kind}.{layer}.{field}": getattr(part, field)
            for kind, parts in kinds.items()
            for layer, part in enumerate(parts)
            for field in part.FIELDS
        }

    def save(self, directory):
        tables.write_pool_part(directory, self.done, self.pool_rows)
        self.pool_rows = []
        self.firings.save(directory, self.done)
        write_safetensors(
            directory / CHECKPOINT,
            {name: torch.from_numpy(array) for name, array in self.tensors().items()},
            {"done": str(self.done)},
        )

    def load(self, directory):
        """Takes up the checkpoint in `directory`, if there is one."""
        from safetensors import safe_open

        if not (directory / CHECKPOINT).is_file():
            _remove_parts(directory)
            return
        with safe_open(directory / CHECKPOINT, framework="np") as file:
            self.done = int(file.metadata()["done"])
            for name, array in self.tensors().items():
                array[...] = file.get_tensor(name)
        _remove_parts(directory, after=self.done)


def _remove_parts(directory, *, after=None):
    """Removes what the pass put into files beside its checkpoint: all, or what lies after the first `after` sequences."""
    for folder in (directory / tables.POOL_PARTS, directory / FIRING_PARTS):
        if after is None:
            shutil.rmtree(folder, ignore_errors=True)
        for path in folder.rglob("*.parquet"):
            if int(path.stem) > after:
                path.unlink()


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
