"""Files that one process at a time holds. A lock ends with the process that holds it, however that ends."""

import fcntl
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path, *, refused=None):
    """Holds the lock file at `path` within the block. Where another process holds it, raises the exception `refused`, or without one waits."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if refused else 0))
        except BlockingIOError:
            raise refused from None
        yield
