"""The line before a database: two advisory locks beside its file. flock belongs to an open file, so threads of one process line up as well."""

import fcntl
import os
import stat
import time
from contextlib import contextmanager

from cltdb.errors import CltdbError

POLL_S = 0.002
COURTESY_S = 0.8
"""So long a writer looks for a moment in which nobody reads, or half of the time that it may wait; meanwhile readers go in and out."""


@contextmanager
def place_in_line(path, *, write, deadline):
    """Holds `<db>.lock` (shared to read, alone to write) for the block, having waited its turn."""
    turn, lock = _lock_file(path, "turn", write=write), _lock_file(path, "lock", write=write)
    try:
        if turn is not None and lock is not None and not (write and _came_in_between(lock, deadline)):
            _acquire(turn, fcntl.LOCK_EX, path=path, deadline=deadline)
            _acquire(lock, fcntl.LOCK_EX if write else fcntl.LOCK_SH, path=path, deadline=deadline)
            fcntl.flock(turn, fcntl.LOCK_UN)
        yield
    finally:
        for descriptor in (lock, turn):
            if descriptor is not None:
                os.close(descriptor)


def _came_in_between(lock, deadline):
    """True where a writer got the lock in a moment in which nobody had it."""
    start = time.monotonic()
    end = start + min(COURTESY_S, (deadline - start) / 2)
    while not (came := _tried(lock, fcntl.LOCK_EX)) and time.monotonic() < end:
        time.sleep(POLL_S)
    return came


def _lock_file(path, name, *, write):
    """Descriptor of `<db>.<name>`, created where possible; None for a reader in a folder that nobody may write to."""
    lock_path = f"{path}.{name}"
    try:
        return os.open(lock_path, os.O_RDONLY)  # flock needs no write permission
    except FileNotFoundError:
        pass
    try:
        return os.open(lock_path, os.O_RDONLY | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
    except OSError as error:
        if not write:
            return None
        raise CltdbError(
            lock_path,
            found=f"a folder one cannot write to ({error.strerror})",
            expected="write permission beside the database",
            do="run as its owner, or set `database: {path: …}` to another folder",
        ) from error


def _acquire(descriptor, kind, *, path, deadline):
    while not _tried(descriptor, kind):
        if time.monotonic() > deadline:
            raise CltdbError(
                str(path),
                found="a database that other processes keep busy",
                expected="a free moment to open it",
                do="end long queries or other cltdb processes and try again",
            )
        time.sleep(POLL_S)


def _tried(descriptor, kind):
    """True where the descriptor has the lock now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
