"""Ctrl-C while DuckDB works. Where DuckDB notices the signal it ends its query and raises an error of its own, and the `KeyboardInterrupt` that
Python would raise is lost. Whoever meets that error has to take it for what it is, or a run would go on as after a failure. Where all of a
query runs in other threads, DuckDB does not notice the signal before its end."""

import os
import signal
import sys
import threading
from contextlib import contextmanager

from cltdb.database import native

_ended = threading.Event()


def end_at_sigterm():
    """SIGTERM ends this process as an error would, so that temporary files are removed."""

    def end(number, _):
        _ended.set()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


@contextmanager
def interrupts_raised():
    """Raises KeyboardInterrupt where a call of DuckDB in the block was interrupted, or what SIGTERM ends the process with. Every connection is used
    within one."""
    try:
        yield
    except Exception as error:
        if was_interrupted(error):
            raise (SystemExit(128 + signal.SIGTERM) if _ended.is_set() else KeyboardInterrupt) from error
        raise


def was_interrupted(error):
    """True of what DuckDB raises where `connection.interrupt()` or a signal ended its query, at once or while its rows stream."""
    if isinstance(error, (native.duckdb().InterruptException, RuntimeError)):  # a RuntimeError where DuckDB saw the signal first
        return "interrupt" in str(error).lower()
    of_stream = isinstance(error, OSError) or type(error).__module__.startswith("pyarrow.")  # which need not be imported
    return of_stream and "INTERRUPT" in str(error)


@contextmanager
def interruptible(connection):
    """Within the block SIGINT and SIGTERM end the query that runs; their numbers are in the list that this yields. Python's own
    handlers wait until DuckDB returns; the number of a signal arrives in the wakeup descriptor at once, where a thread sees it."""
    signals = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)

    def watch():
        while number := os.read(receiver, 1):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                signals.append(number[0])
                connection.interrupt()
            if before != -1:  # whoever listened, such as an event loop, still hears of it
                os.write(before, number)

    before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(before)
        os.close(sender)
        thread.join()
        os.close(receiver)
