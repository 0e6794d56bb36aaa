"""Rows of one statement to a consumer that takes its time, without keeping a writer out.

A thread asks and hands batches on, at most QUEUED ahead of the consumer, so that a result larger than memory streams through. The
database is in use meanwhile. So the thread waits for the consumer for at most PATIENCE_S in all: then it writes what is left into a
temporary file as fast as the database gives it, lets go of the database, and the consumer reads on from the file. A consumer that keeps
up sees no file; one that reads nothing at all holds a writer up for as long as the query itself takes, and PATIENCE_S.
"""

import os
import tempfile
import threading
import time
from itertools import chain, takewhile
from queue import SimpleQueue

from cltdb.database.folder import reading
from cltdb.database.query import answer, ask, errors_explained, spooled

PATIENCE_S = 1.0
"""The longest hold that a writer is promised besides the time of a query (design: a hold lasts at most a second)."""
QUEUED = 3
"""Batches of `query.BATCH_ROWS` rows in memory: those that wait and the one that the consumer has in hand."""


def stream(path, sql, params=None, *, connection=None):
    """The rows of one read-only statement as a `pyarrow.RecordBatchReader`; errors in the statement are raised here. `connection`: one
    that others go on to ask, whose rows therefore all go into a file."""
    import pyarrow as pa

    if connection:
        with ask(path, sql, params, connection=connection) as reader:
            spool = _Spool(reader, reader.schema)
        return pa.RecordBatchReader.from_batches(spool.file.schema, spool.batches())
    batches = _received(path, sql, params)
    schema = next(batches)
    return pa.RecordBatchReader.from_batches(schema, batches)


def _received(path, sql, params):
    """The schema, then the batches. Where the consumer closes or forgets it, the query ends."""
    import pyarrow as pa

    line = _Line()
    thread = threading.Thread(target=_send, args=(line, path, sql, params), name="cltdb stream")
    thread.start()
    try:
        while (message := line.messages.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, _Spool):
                yield from message.batches()
                continue
            yield message
            if isinstance(message, pa.RecordBatch):
                line.places.release()
    finally:
        line.hang_up()
        if thread is not threading.current_thread():  # which may be the one that frees what is forgotten
            thread.join(timeout=PATIENCE_S)


class _Line:
    """What the two ends share. messages: the schema, batches, a `_Spool`, or an error; None at the end. places: for batches on their
    way and the one that the consumer has in hand."""

    def __init__(self):
        self.messages, self.places = SimpleQueue(), threading.Semaphore(QUEUED)
        self.connection, self.lock, self.hung_up = None, threading.Lock(), False

    def connect(self, connection):
        """Tells the consumer's end of the connection that asks; None when it is gone."""
        with self.lock:
            self.connection = connection

    @property
    def is_closed(self):
        """True when nobody will read: the consumer is gone, or the process is about to end."""
        return self.hung_up or not threading.main_thread().is_alive()

    def hang_up(self):
        """The consumer is gone."""
        with self.lock:
            self.hung_up = True
            if self.connection is not None:
                self.connection.interrupt()
        self.places.release()


class _Spool:
    """Batches in a temporary file that has no name any more: it goes with the last who holds it open."""

    def __init__(self, batches, schema):
        import pyarrow as pa

        with tempfile.TemporaryDirectory(prefix="cltdb-") as folder:
            path = os.path.join(folder, "rows.arrow")
            options = pa.ipc.IpcWriteOptions(compression="lz4")  # 980,000 contexts: half the bytes for 0.5 CPU s more
            with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
                for batch in spooled(batches, path):
                    writer.write_batch(batch)
            self.file = pa.ipc.open_file(pa.OSFile(path))

    def batches(self):
        return (self.file.get_batch(i) for i in range(self.file.num_record_batches))


def _send(line, path, sql, params):
    """The other end, in a thread of its own, which ends when the database is free."""
    try:
        with reading(path) as connection, errors_explained(path):
            line.connect(connection)
            try:
                if line.is_closed:
                    return
                reader = answer(connection, sql, params)
                line.messages.put(reader.schema)
                left = _hand_on(line, reader)
                rest = takewhile(lambda _: not line.is_closed, chain([left], reader))
                spool = _Spool(rest, reader.schema) if left is not None else None
            finally:
                line.connect(None)
        if spool is not None:
            line.messages.put(spool)
        line.messages.put(None)
    except BaseException as error:  # noqa: BLE001 (raised where the rows are read)
        line.messages.put(error)


def _hand_on(line, reader):
    """Hands batches on until the consumer has kept it waiting for PATIENCE_S; returns the batch that found no place, None at the end."""
    patience = PATIENCE_S
    for batch in reader:
        before = time.monotonic()
        if not line.places.acquire(timeout=patience):
            return batch
        if line.is_closed:
            return None
        line.messages.put(batch)
        patience = max(0.0, patience - (time.monotonic() - before))
    return None
