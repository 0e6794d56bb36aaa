"""Reads the pools of a source ahead of the batches, in threads, within the memory bound.

A pool of rows is held as it is stored, its rows laid out in the order in which they are trained on; a batch is decoded from
neighbouring rows. While one pool is used up, threads read the next one and decode the next batches.
"""

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cltdb.activations import codec as codecs
from cltdb.activations.shards import SIDES
from cltdb.activations.sizes import MemoryPlan, memory_plan  # noqa: F401
from cltdb.errors import DataError

READ_AHEAD_RATE = 2.0  # the next pool is whole when half of the present one is used up


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


class PoolLoad:
    """One pool on its way into memory. wanted: places in the pool's order that are kept, sorted; columns: where they go."""

    def __init__(self, source, pool, wanted, columns):
        self.source, self.pool, self.wanted = source, pool, wanted
        self.columns = columns
        self.blocks = source.order.blocks(pool)
        self.first_row = np.concatenate([[0], source.order.block_rows[self.blocks].cumsum(dtype=np.int64)])
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
        for place, ordinary, columns in self.source.read(self.blocks[places]):
            slots = self.slot[slice(*self.first_row[[places[place], places[place] + 1]])]
            wanted = np.flatnonzero(slots >= 0)
            slots, rows = slots[wanted], ordinary[wanted]
            for name, values in columns.items():
                self.columns[name][slots] = values[rows]

    def decode(self, first, stop, x, y):
        """Fills x, y [row, n_layers, d_model] with the pool's rows first to stop - 1, all of which are wanted."""
        slots = slice(*np.searchsorted(self.wanted, [first, stop]))
        for side, out in zip(SIDES, (x, y), strict=True):
            columns = {name.removeprefix(side): column[slots] for name, column in self.columns.items() if name.startswith(side)}
            codecs.decode(columns, self.source.codec, self.source.scales[side], out)


class Reader:
    """Iterates over the batches (x, y) of a `Share`, as arrays. Holds at most n_pools pools, whose memory is used again, and the batches decoded ahead."""

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
                yield x, y

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
