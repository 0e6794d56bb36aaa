"""Training batches from a cache on disk or, in `mode: stream`, from the running model, in the order that `order` fixes.

Reads: `cache.json`, shards and static scales of stage activations; in mode stream the model and the training sequences.
What a row's place is depends on the seed, the epoch and the pool alone, never on ranks, threads or the memory bound.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from cltdb.activations import codec as codecs
from cltdb.activations import shards
from cltdb.activations.order import RowOrder
from cltdb.activations.ordinary import ordinary_places
from cltdb.activations.reader import PoolLoad, Reader, Share
from cltdb.activations.settings import Loader
from cltdb.activations.sizes import Sizes, memory_plan
from cltdb.activations.storage import Folder
from cltdb.engine.integrity import checked
from cltdb.errors import DataError

SUMMARY_FILE = "cache.json"
SCALES_FILE = "codec.safetensors"
BLOCKS_PER_READ = 4


class Batch(NamedTuple):
    """MLP inputs and outputs of a batch of tokens, each [token, n_layers, d_model] float32."""

    x: torch.Tensor
    y: torch.Tensor


def open_source(directory, *, part="train", seed, options=None, language_model=None, sequences=None):
    """The source of training batches that stage activations left in `directory`, a path, a URI or a `storage.Folder`.

    options: section `Loader`. language_model, sequences: needed in mode stream, the part's sequences that stage activations saw.
    """
    folder, summary = _read_summary(directory)
    options = options or Loader()
    if summary["mode"] == "stream":
        return StreamSource(folder, summary, part=part, seed=seed, options=options, lm=language_model, sequences=sequences)
    return CacheSource(folder, summary, part=part, seed=seed, options=options)


def _read_summary(directory):
    """(folder of the shards, summary) of what stage activations wrote; another format version is an error."""
    folder = Folder(directory)
    if folder.is_local and folder.has(SUMMARY_FILE):
        checked(f"{folder.path}/{SUMMARY_FILE}")
    try:
        summary = json.loads(folder.read(SUMMARY_FILE))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(
            folder.place_of(SUMMARY_FILE),
            found=f"no summary that can be read ({error})",
            expected="the summary of a finished cache",
            do="run again with --force activations",
        ) from error
    if summary.get("format_version") != shards.FORMAT_VERSION:
        raise DataError(
            folder.place_of(SUMMARY_FILE),
            found=f"format version {summary.get('format_version')}",
            expected=f"format version {shards.FORMAT_VERSION}, that of this cltdb",
            do="run again with --force activations",
        )
    return Folder(summary["location"]) if "location" in summary else folder, summary


class Source:
    """What both sources share: the order of the rows, pools, batches. A subclass says how a pool's blocks are read."""

    def __init__(self, summary, *, block_rows, n_seqs, codec, scales, seed, options):
        """block_rows: ordinary tokens of every block of the part, of n_seqs sequences."""
        self.summary, self.codec, self.scales, self.options = summary, codec, scales, options
        self.n_layers, self.d_model, self.context = summary["n_layers"], summary["d_model"], summary["context"]
        block_seqs = summary["block_seqs"]
        self.tokens_per_read = block_seqs * self.context
        self.order = RowOrder(
            block_rows,
            n_full=n_seqs // block_seqs,
            most_rows=block_seqs * (self.context - 1),
            pool_rows=options.shuffle_tokens,
            seed=seed,
        )
        self.n_rows = self.order.n_rows
        self.columns = {
            side + suffix: column
            for side in shards.SIDES
            for suffix, column in codecs.layout(codec, n_layers=self.n_layers, d_model=self.d_model).items()
        }
        self._kept = None

    def batch(self, step, batch_tokens, *, rank=0, world_size=1):
        """Part `rank` of global batch number `step`; epochs follow one another without a gap, so no row is dropped. For many batches
        in a row `batches` is faster. The batch itself, as large as the caller wants it, does not count towards the memory bound."""
        share = Share(step, step + 1, batch_tokens, rank, world_size)
        x, y = self.empty_batch(share.tokens)
        filled = 0
        for pool, first, stop in self.order.segments(*share.span(step)):
            if self._kept is None or self._kept.pool != pool:
                self._kept = None
                memory_plan(self.options, self.sizes(self.order.largest_pool, 0))
                self._kept = PoolLoad(self, pool, np.arange(pool.n_rows), self.empty_columns(pool.n_rows))
                with ThreadPoolExecutor(self.options.threads) as executor:
                    self._kept.start(executor if self.parallel else None)
                    self._kept.wait()
            rows = slice(filled, filled + stop - first)
            self._kept.decode(first, stop, x[rows], y[rows])
            filled += stop - first
        return Batch(torch.from_numpy(x), torch.from_numpy(y))

    def batches(self, first_step, n_steps, batch_tokens, *, rank=0, world_size=1):
        """Iterates over `batch(step)` for n_steps steps, read and decoded in the background within the memory bound."""
        self._kept = None
        reader = Reader(self, Share(first_step, first_step + n_steps, batch_tokens, rank, world_size))
        try:
            for x, y in reader:
                yield Batch(torch.from_numpy(x), torch.from_numpy(y))
        finally:
            reader.close()

    def empty_batch(self, n_rows):
        """x, y as arrays."""
        return tuple(np.empty((n_rows, self.n_layers, self.d_model), np.float32) for _ in range(2))

    def empty_columns(self, n_rows):
        """{column: array [row, width]} to hold a pool."""
        return {name: np.empty((n_rows, width), dtype) for name, (width, dtype) in self.columns.items()}

    def sizes(self, pool_rows, batch_rows):
        """The `Sizes` of a pool and a batch of so many rows."""
        return Sizes(
            pool_rows=pool_rows,
            row_bytes=codecs.row_bytes(self.codec, n_layers=self.n_layers, d_model=self.d_model),
            tokens_per_read=self.tokens_per_read,
            batch_rows=batch_rows,
            values=2 * self.n_layers * self.d_model,
            parallel=self.parallel,
        )


class CacheSource(Source):
    """Reads the shards of one part of a cache."""

    parallel = True

    def __init__(self, folder, summary, *, part, seed, options):
        self.folder = folder
        self.shards = [shard for shard in summary["shards"] if shard["part"] == part]
        super().__init__(
            summary,
            block_rows=np.concatenate([np.array(shard["block_rows"], dtype=np.int32) for shard in self.shards]),
            n_seqs=sum(shard["rows"] for shard in self.shards) // summary["context"],
            codec=summary["codec"],
            scales=self._read_scales(summary),
            seed=seed,
            options=options,
        )
        self.first_block = np.concatenate([[0], np.cumsum([len(shard["block_rows"]) for shard in self.shards])])

    def _read_scales(self, summary):
        from safetensors.numpy import load

        place = self.folder.place_of(SCALES_FILE)
        try:
            data = self.folder.read(SCALES_FILE)
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() != summary["scales_sha256"]:
            raise DataError(
                place,
                found=f"{len(data):,} bytes with another checksum" if data else "no such file",
                expected=f"the static scales with sha256 {summary['scales_sha256'][:12]}…",
                do="restore the file, or run again with --force activations",
            )
        return load(data)

    def reads(self, blocks):
        """What is read at once: arrays of places in `blocks`, each in one shard."""
        shard = np.searchsorted(self.first_block, blocks, side="right") - 1
        for number in np.unique(shard):
            places = np.flatnonzero(shard == number)
            yield from (places[start : start + BLOCKS_PER_READ] for start in range(0, len(places), BLOCKS_PER_READ))

    def read(self, blocks):
        """(place in `blocks`, which of its tokens are ordinary, {column: array [token, width]} of all its tokens) for blocks of one
        shard."""
        number = np.searchsorted(self.first_block, blocks[0], side="right") - 1
        shard = self.shards[number]
        index = shards.read_index(self.folder, shard["file"], sha256=shard["index_sha256"])
        place_of = {int(block - self.first_block[number]): place for place, block in enumerate(blocks)}
        for block, tokens, columns in shards.read_blocks(self.folder, index, place_of):
            ordinary = ordinary_places(tokens.reshape(-1, self.context), self.summary["excluded_tokens"])
            yield place_of[block], np.flatnonzero(ordinary), columns


class StreamSource(Source):
    """Runs the model over the sequences of a pool when it is needed. Every rank computes the pools whole and keeps its rows.

    A pool is held in bfloat16 where the model runs in it, else in float32. The model is run by the thread that takes the batches.
    """

    parallel = False

    def __init__(self, folder, summary, *, part, seed, options, lm, sequences):
        assert lm is not None and sequences is not None, "mode stream needs the model and its sequences"
        if shards.tokens_digest(sequences) != summary["parts"][part]["tokens_sha256"]:
            raise DataError(
                folder.place_of(SUMMARY_FILE),
                found=f"a description of other {part} text or tokens",
                expected="that of the text as it is read now",
                do="run again with --force activations",
            )
        assert list(sequences.excluded) == summary["excluded_tokens"], "sequences with other excluded tokens"
        self.lm, self.sequences = lm, sequences
        super().__init__(
            summary,
            block_rows=shards.block_rows(sequences, summary["block_seqs"]),
            n_seqs=len(sequences),
            codec="bfloat16" if lm.dtype == torch.bfloat16 else "float32",
            scales=dict.fromkeys(shards.SIDES),
            seed=seed,
            options=options,
        )
        self.tokens_per_read = max(self.tokens_per_read, summary["batch_seqs"] * self.context)

    def reads(self, blocks):
        """The batches in which the model runs: blocks of about as many sequences as stage activations took at once."""
        per_run = max(1, self.summary["batch_seqs"] // self.summary["block_seqs"])
        yield from (np.arange(len(blocks))[start : start + per_run] for start in range(0, len(blocks), per_run))

    def read(self, blocks):
        block_seqs = self.summary["block_seqs"]
        chosen = [np.arange(block * block_seqs, min((block + 1) * block_seqs, len(self.sequences))) for block in blocks]
        chunk = self.sequences.take(np.concatenate(chosen))
        stops = np.cumsum([len(numbers) for numbers in chosen]) * self.context
        for _, sides in shards.forward(self.lm, chunk, len(chunk), where=f"sequences {chosen[0][0]} to {chosen[-1][-1]}"):
            columns = {
                side + suffix: values
                for side, x in sides.items()
                for suffix, values in codecs.encode(x, self.codec, None).items()
            }
        for place, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
            ordinary = np.flatnonzero(self.sequences.take(chosen[place]).ordinary)
            yield place, ordinary, {name: values[start:stop] for name, values in columns.items()}
