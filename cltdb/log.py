"""Log handlers and the one progress bar. Library code logs; only the command line prints results."""

import logging
import os
import sys
import time
from contextlib import contextmanager


def setup(*, debug=False, stream=sys.stderr, level=logging.INFO):
    """Sends cltdb's log records of `level` and above to `stream`, on rank 0 alone; called once by the command line."""
    rank = int(os.environ.get("RANK", "0"))
    logger = logging.getLogger("cltdb")
    logger.setLevel(logging.DEBUG if debug else level if rank == 0 else logging.ERROR)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.propagate = False


class Progress:
    """How far a long loop is; `advance(n, note)` moves it."""

    def __init__(self, bar):
        self._bar = bar

    def advance(self, n=1, note=None):
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)


@contextmanager
def progress(label, *, total, unit, done=0):
    """A `Progress` with rate and time left on a terminal, nothing in a pipe; `done` units were finished by an earlier run."""
    terminal = sys.stderr.isatty() or os.environ.get("CLTDB_BARS") == "1"  # which a launched rank only reaches through a pipe
    if not terminal or int(os.environ.get("RANK", "0")) != 0:
        yield Progress(None)
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, desc=label, unit=f" {unit}", unit_scale=True, file=sys.stderr, leave=False) as bar:
        yield Progress(bar)


@contextmanager
def stopwatch():
    """A function that returns the seconds since the block began."""
    start = time.monotonic()
    yield lambda: time.monotonic() - start
