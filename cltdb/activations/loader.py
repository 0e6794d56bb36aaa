"""Training batches from a cache on disk or, in `mode: stream`, from the running model, in the order that `order` fixes.

Reads: `cache.json`, shards and static scales of stage activations; in mode stream the model and the training sequences.
A pool of rows is held as it is stored, its rows laid out in the order in which they are trained on; a batch is decoded from
neighbouring rows. While one pool is used up, threads read the next one and decode the next batches. What a row's place is depends
on the seed, the epoch and the pool alone, never on ranks, threads or the memory bound.
"""

import hashlib
import json
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from cltdb.activations import codec as codecs
from cltdb.activations import shards
from cltdb.activations.order import RowOrder
from cltdb.activations.storage import Folder
from cltdb.errors import DataError
from cltdb.spec import Loader

SUMMARY_FILE = "cache.json"
SCALES_FILE = "codec.safetensors"
BLOCKS_PER_READ = 4
LIBRARY_BYTES = 50_000_000  # what pyarrow takes for itself when the first block is read, measured
READ_AHEAD_RATE = 2.0  # the next pool is whole when half of the present one is used up


class Batch(NamedTuple):
    """MLP inputs and outputs of a batch of tokens, each [token, n_layers, d_model] float32."""

    x: torch.Tensor
    y: torch.Tensor


class Share(NamedTuple):
    """What one of world_size ranks takes of the stream: part `rank` of each of the batches first_step to stop_step - 1."""

    first_step: int
    stop_step: int
    batch_tokens: int
    rank: int
    world_size: int

    @property
    def tokens(self):
        """Rows of this rank per batch."""
        if self.batch_tokens % self.world_size:
            raise DataError(
                "train.batch_tokens",
                found=f"{self.batch_tokens} for {self.world_size} processes",
                expected="a multiple of the processes that share a batch",
                do="change train.batch_tokens or train.launch",
            )
        return self.batch_tokens // self.world_size

    def span(self, step):
        """(first row, last row + 1) in the stream of this rank's part of a batch."""
        first = step * self.batch_tokens + self.rank * self.tokens
        return first, first + self.tokens

    def wanted(self, first_row, n_rows):
        """Which of the rows first_row … first_row + n_rows - 1 of the stream are this rank's: sorted places from 0."""
        rows = np.arange(n_rows)
        step, within = np.divmod(first_row + rows, self.batch_tokens)
        return rows[(within // self.tokens == self.rank) & (step >= self.first_step) & (step < self.stop_step)]


def open_source(directory, *, part="train", seed, options=None, language_model=None, sequences=None):
    """The source of training batches that stage activations left in `directory`, a path, a URI or a `storage.Folder`.

    options: `spec.Loader`. language_model, sequences: needed in mode stream, the part's sequences that stage activations saw.
    """
    folder, summary = _read_summary(directory)
    options = options or Loader()
    if summary["mode"] == "stream":
        return StreamSource(folder, summary, part=part, seed=seed, options=options, lm=language_model, sequences=sequences)
    return CacheSource(folder, summary, part=part, seed=seed, options=options)


def _read_summary(directory):
    """(folder of the shards, summary) of what stage activations wrote; another format version is an error."""
    folder = Folder(directory)
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

    def __init__(self, summary, *, n_rows, codec, scales, seed, options):
        self.summary, self.n_rows, self.codec, self.scales, self.options = summary, n_rows, codec, scales, options
        self.n_layers, self.d_model, self.context = summary["n_layers"], summary["d_model"], summary["context"]
        block_rows = summary["block_seqs"] * (self.context - 1)
        self.tokens_per_read = summary["block_seqs"] * self.context
        self.order = RowOrder(n_rows, block_rows=block_rows, pool_rows=options.shuffle_tokens, seed=seed)
        self.columns = {
            side + suffix: column
            for side in shards.SIDES
            for suffix, column in codecs.layout(codec, n_layers=self.n_layers, d_model=self.d_model).items()
        }
        self._kept = None

    def batch(self, step, batch_tokens, *, rank=0, world_size=1):
        """Part `rank` of global batch number `step`; epochs follow one another without a gap, so no row is dropped. For many batches
        in a row `batches` is faster."""
        share = Share(step, step + 1, batch_tokens, rank, world_size)
        x, y = self.empty_batch(share.tokens)
        filled = 0
        for pool, first, stop in self.order.segments(*share.span(step)):
            if self._kept is None or self._kept.pool != pool:
                self._kept = None
                memory_plan(self.options, self.sizes(self.order.largest_pool, share.tokens))
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
        reader = _Reader(self, Share(first_step, first_step + n_steps, batch_tokens, rank, world_size))
        try:
            yield from reader
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
            n_rows=sum(shard["trainable_rows"] for shard in self.shards),
            codec=summary["codec"],
            scales=self._read_scales(summary),
            seed=seed,
            options=options,
        )
        blocks = [-(-shard["trainable_rows"] // self.order.block_rows) for shard in self.shards]
        self.first_block = np.concatenate([[0], np.cumsum(blocks)])

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
        """(place in `blocks`, {column: array [row, width]} of all rows of the block) for blocks of one shard."""
        number = np.searchsorted(self.first_block, blocks[0], side="right") - 1
        shard = self.shards[number]
        index = shards.read_index(self.folder, shard["file"], sha256=shard["index_sha256"])
        place_of = {int(block - self.first_block[number]): place for place, block in enumerate(blocks)}
        for block, columns in shards.read_blocks(self.folder, index, place_of):
            yield place_of[block], columns


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
        self.lm, self.sequences = lm, sequences
        codec = "bfloat16" if lm.dtype == torch.bfloat16 else "float32"
        n_rows = len(sequences) * (summary["context"] - 1)
        super().__init__(summary, n_rows=n_rows, codec=codec, scales=dict.fromkeys(shards.SIDES), seed=seed, options=options)
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
            yield place, {name: values[start:stop] for name, values in columns.items()}


class PoolLoad:
    """One pool on its way into memory. wanted: places in the pool's order that are kept, sorted; columns: where they go."""

    def __init__(self, source, pool, wanted, columns):
        self.source, self.pool, self.wanted = source, pool, wanted
        self.columns = columns
        self.blocks = source.order.blocks(pool)
        self.slot = np.full(pool.n_rows, -1)
        self.slot[source.order.rows(pool)[wanted]] = np.arange(len(wanted))
        self.reads, self.futures, self.decodes = deque(source.reads(self.blocks)), [], []
        self.n_reads = len(self.reads)

    def start(self, executor, *, frac=1.0):
        """Lets the executor do the next reads, this share of all; without an executor they are done at once."""
        for _ in range(min(len(self.reads), math.ceil(frac * self.n_reads))):
            places = self.reads.popleft()
            if executor is None:
                self._read(places)
            else:
                self.futures.append(executor.submit(self._read, places))

    def is_done(self):
        return not self.reads and all(future.done() for future in self.futures)

    def wait(self):
        for future in self.futures:
            future.result()

    def _read(self, places):
        """Puts the wanted rows of the blocks at `places` where they belong."""
        context, block_rows = self.source.context, self.source.order.block_rows
        for place, columns in self.source.read(self.blocks[places]):
            first = places[place] * block_rows  # only the last block of a pool may be shorter
            slots = self.slot[first : first + block_rows]
            rows = np.flatnonzero(slots >= 0)
            slots, rows = slots[rows], rows + rows // (context - 1) + 1  # position 0 of every sequence is left out
            for name, values in columns.items():
                self.columns[name][slots] = values[rows]

    def decode(self, first, stop, x, y):
        """Fills x, y [row, n_layers, d_model] with the pool's rows first to stop - 1, all of which are wanted."""
        slots = slice(*np.searchsorted(self.wanted, [first, stop]))
        for side, out in zip(shards.SIDES, (x, y), strict=True):
            columns = {name.removeprefix(side): column[slots] for name, column in self.columns.items() if name.startswith(side)}
            codecs.decode(columns, self.source.codec, self.source.scales[side], out)


class MemoryPlan(NamedTuple):
    """n_pools that are held at once, and batches decoded ahead."""

    n_pools: int
    ahead: int


class Sizes(NamedTuple):
    """What memory depends on. pool_rows: of the largest pool; row_bytes: as a pool holds it; tokens_per_read: rows that are
    brought at once; values: of one decoded row."""

    pool_rows: int
    row_bytes: int
    tokens_per_read: int
    batch_rows: int
    values: int
    parallel: bool


def memory_plan(options, sizes):
    """The `MemoryPlan` that fits in the configured bound; DataError where not even one pool and two batches do."""
    bound = options.memory_mb * 10**6
    pool = sizes.pool_rows * (sizes.row_bytes + 4 * 8)  # and row numbers
    batch = sizes.batch_rows * sizes.values * 4
    block = sizes.tokens_per_read * max(4 * sizes.row_bytes, 2 * sizes.values) * (options.threads if sizes.parallel else 1)
    for n_pools, ahead in ((2, options.read_ahead), (2, 1), (1, options.read_ahead), (1, 1)):
        if LIBRARY_BYTES + n_pools * pool + (ahead + 1) * batch + block <= bound and (sizes.parallel or n_pools == 1):
            return MemoryPlan(n_pools, ahead)
    raise DataError(
        "activations.loader.memory_mb",
        found=f"{options.memory_mb:,}",
        expected=f"at least {math.ceil((LIBRARY_BYTES + pool + 2 * batch + block) / 1e6):,}: a shuffle pool of {sizes.pool_rows:,} rows of"
        f" {sizes.row_bytes:,} bytes ({pool / 1e6:,.0f} MB), two batches ({2 * batch / 1e6:,.0f} MB), and blocks being read"
        f" and the library that reads them ({(LIBRARY_BYTES + block) / 1e6:,.0f} MB)",
        do="raise it, or lower activations.loader.shuffle_tokens (which makes another training run)",
    )


def check_memory(options, *, sizes, codec, context, train_tokens, batch_tokens):
    """Raises before anything is computed what `memory_plan` would when training begins. sizes: (n_layers, d_model) of the model."""
    n_layers, d_model = sizes
    memory_plan(
        options,
        Sizes(
            pool_rows=min(options.shuffle_tokens, train_tokens),
            row_bytes=codecs.row_bytes(codec, n_layers=n_layers, d_model=d_model),
            tokens_per_read=context,
            batch_rows=batch_tokens,
            values=2 * n_layers * d_model,
            parallel=True,
        ),
    )


class _Reader:
    """Iterates over a `Share`. Holds at most n_pools pools, whose memory is used again, and the batches decoded ahead."""

    def __init__(self, source, share):
        self.source, self.share = source, share
        in_pool = math.ceil(source.order.largest_pool / share.world_size) + share.tokens
        rows = min(source.order.largest_pool, in_pool, max(1, (share.stop_step - share.first_step) * share.tokens))
        self.plan = memory_plan(source.options, source.sizes(rows, share.tokens))
        self.executor = ThreadPoolExecutor(source.options.threads, thread_name_prefix="cltdb-loader")
        self.free = [source.empty_columns(rows) for _ in range(self.plan.n_pools)]
        self.loads = deque()  # the pool in use first
        self.upcoming = self._pools()

    def __iter__(self):
        decoded = deque()
        steps = deque([self.share.first_step])
        while steps or decoded:
            while steps and len(decoded) < self.plan.ahead and (not decoded or self._is_loaded(steps[0])):
                step = steps.popleft()
                if step < self.share.stop_step:
                    decoded.append(self._decode(step))
                    steps.append(step + 1)
            if decoded:
                x, y, futures = decoded.popleft()
                for future in futures:
                    future.result()
                yield Batch(torch.from_numpy(x), torch.from_numpy(y))

    def close(self):
        self.executor.shutdown(wait=True, cancel_futures=True)

    def _pools(self):
        """The pools that hold rows of this share, in order, with the wanted places."""
        order, share = self.source.order, self.share
        row, stop = share.first_step * share.batch_tokens, share.stop_step * share.batch_tokens
        while row < stop:
            pool = order.pool_at(row)
            wanted = share.wanted(order.first_row(pool), pool.n_rows)
            if len(wanted):
                yield pool, wanted
            row = order.first_row(pool) + pool.n_rows

    def _is_loaded(self, step):
        """True where a batch can be decoded without waiting for a read."""
        done = {load.pool for load in self.loads if load.is_done()}
        return all(segment.pool in done for segment in self.source.order.segments(*self.share.span(step)))

    def _decode(self, step):
        """x, y of a batch and the futures that fill them; waits for its pools."""
        x, y = self.source.empty_batch(self.share.tokens)
        futures, filled = [], 0
        for pool, first, stop in self.source.order.segments(*self.share.span(step)):
            load = self._load(pool)
            rows = slice(filled, filled + stop - first)
            futures.append(self.executor.submit(load.decode, first, stop, x[rows], y[rows]))
            load.decodes.append(futures[-1])
            filled += stop - first
        self._read_ahead()
        return x, y, futures

    def _load(self, pool):
        """The pool's `PoolLoad`, whole; those before it are let go."""
        while not self.loads or self.loads[0].pool != pool:
            if self.loads:
                self._let_go(self.loads.popleft())
            if not self.loads:
                self._begin_next()
        load = self.loads[0]
        load.start(self.executor if self.source.parallel else None)
        load.wait()
        return load

    def _begin_next(self):
        """Gives the next pool its memory."""
        following = next(self.upcoming, None)
        if following is not None:
            self.loads.append(PoolLoad(self.source, *following, self.free.pop()))

    def _let_go(self, load):
        for future in load.decodes:
            future.result()
        self.free.append(load.columns)

    def _read_ahead(self):
        """Reads a little of the pool after the one in use: enough that it is whole in time."""
        if len(self.loads) == 1 and self.free:
            self._begin_next()
        if len(self.loads) == 2:
            batches = max(1, len(self.loads[0].wanted) // self.share.tokens)
            self.loads[1].start(self.executor, frac=READ_AHEAD_RATE / batches)
