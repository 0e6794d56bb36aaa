"""The line before a database: two advisory locks beside its file. flock belongs to an open file, so threads of one process line up as well."""

import errno
import fcntl
import os
import stat
import time
from contextlib import contextmanager

from cltdb.engine.locks import took
from cltdb.errors import CltdbError

POLL_S = 0.002
NOT_WRITABLE, FULL = (errno.EACCES, errno.EPERM, errno.EROFS), (errno.ENOSPC, errno.EDQUOT)
COURTESY_S = 0.8
"""So long a writer looks for a moment in which nobody reads, or half of the time that it may wait; meanwhile readers go in and out."""


@contextmanager
def place_in_line(path, *, write, deadline):
    """Holds `<db>.lock` (shared to read, alone to write) for the block, having waited its turn."""
    turn, lock = _lock_file(path, "turn", write=write), _lock_file(path, "lock", write=write)
    try:
        if turn is not None and lock is not None and not (write and _came_in_between(lock, path, deadline)):
            _acquire(turn, fcntl.LOCK_EX, path=path, deadline=deadline)
            _acquire(lock, fcntl.LOCK_EX if write else fcntl.LOCK_SH, path=path, deadline=deadline)
            fcntl.flock(turn, fcntl.LOCK_UN)
        yield
    finally:
        for descriptor in (lock, turn):
            if descriptor is not None:
                os.close(descriptor)


def _came_in_between(lock, path, deadline):
    """True where a writer got the lock in a moment in which nobody had it."""
    start = time.monotonic()
    end = start + min(COURTESY_S, (deadline - start) / 2)
    while not (came := took(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, path)) and time.monotonic() < end:
        time.sleep(POLL_S)
    return came


def _lock_file(path, name, *, write):
    """Descriptor of `<db>.<name>`, created where possible; None for a reader in a folder that nobody may write to, or on a full disk."""
    lock_path = f"{path}.{name}"
    try:
        return os.open(lock_path, os.O_RDWR)  # which NFS wants of a lock that is held alone; elsewhere reading is enough
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        return os.open(lock_path, os.O_RDONLY)
    try:
        return os.open(lock_path, os.O_RDWR | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
    except OSError as error:
        if not write:
            if error.errno in (*NOT_WRITABLE, *FULL):
                return None
            raise  # such as too many open files, which no reader may take for that
        raise CltdbError(
            lock_path,
            found=f"a folder one cannot write to ({error.strerror})",
            expected="write permission beside the database",
            do="run as its owner, or set `database: {path: …}` to another folder",
        ) from error


def _acquire(descriptor, kind, *, path, deadline):
    while not took(descriptor, kind | fcntl.LOCK_NB, path):
        if time.monotonic() > deadline:
            raise CltdbError(
                str(path),
                found="a database that other processes keep busy",
                expected="a free moment to open it",
                do="end long queries or other cltdb processes and try again",
            )
        time.sleep(POLL_S)
