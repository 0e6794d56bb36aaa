"""Files that one process at a time holds. A lock ends with the process that holds it, however that ends."""

import fcntl
from contextlib import contextmanager
from pathlib import Path

from cltdb.errors import CltdbError


@contextmanager
def held(path, *, refused=None):
    """Holds the lock file at `path` within the block. Where another process holds it, raises the exception `refused`, or without one waits."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as lock:
        if not took(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if refused else 0), path):
            raise refused from None
        yield


def took(file, kind, path):
    """Takes a lock of the open file, whose path is for the error alone; False where another process has it and `kind` says not to wait. CltdbError
    where the file system has no locks: what they keep apart would be damaged without them."""
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        raise CltdbError(
            str(path),
            found=f"a file system that does not lock files ({error.strerror})",
            expected="one on which flock works, as on a local disk",
            do="mount it with locks, or move the project to a local disk; of the database alone, with `database: {path: …}` in cltdb.yaml",
        ) from error
    return True
