"""Log handlers and the one progress bar. Library code logs; only the command line prints results."""

import json
import logging
import os
import sys
import time
from contextlib import contextmanager, suppress

logger = logging.getLogger(__name__)
LINE_EVERY_S = 60
REPORT_EVERY_S = 2
REPORT = "CLTDB_REPORT"
"""Environment variable: the file in which the browser reads how far a stage is."""


def setup(*, debug=False, stream=sys.stderr, level=logging.INFO):
    """Sends cltdb's log records of `level` and above to `stream`, on rank 0 alone; called once by the command line."""
    rank = int(os.environ.get("RANK", "0"))
    logger = logging.getLogger("cltdb")
    logger.setLevel(logging.DEBUG if debug else level if rank == 0 else logging.ERROR)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logging.raiseExceptions = False  # a log that takes no more does not end the work


def stream():
    """Where the lines of the log go."""
    return next((handler.stream for handler in logging.getLogger("cltdb").handlers if hasattr(handler, "stream")), sys.stderr)


class Progress:
    """How far a long loop is; `advance(n, note)` moves it. This one says nothing."""

    def advance(self, n=1, note=None):
        pass


class Bar(Progress):
    """A bar on a terminal, with rate and time left."""

    def __init__(self, bar):
        self._bar = bar

    def advance(self, n=1, note=None):
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(n)


class Lines(Progress):
    """A line in the log every LINE_EVERY_S seconds: how much is done, the rate, the time left. total: None where it is not known."""

    def __init__(self, label, *, total, unit, done, clock=time.monotonic):
        self.label, self.total, self.unit, self.done, self.clock = label, total, unit, done, clock
        self.first, self.began = done, clock()
        self.said = self.began

    def advance(self, n=1, note=None):
        self.done += n
        now = self.clock()
        if now - self.said < LINE_EVERY_S:
            return
        self.said = now
        rate = (self.done - self.first) / (now - self.began)
        parts = [f"{self.done:,.0f} {self.unit}", f"{rate:,.3g} a second"]
        if self.total:
            parts[0] = f"{self.done:,.0f} of {self.total:,.0f} {self.unit} ({self.done / self.total:.0%})"
            if rate:
                parts.append(f"{duration(max(0, self.total - self.done) / rate)} left")
        logger.info("%s: %s", self.label, ", ".join([*parts, *([note] if note else [])]))


class Report(Progress):
    """Passes on to another, and says in a file, as JSON, how far it is; a disk that takes no more does not end the work."""

    def __init__(self, other, path, *, clock=time.monotonic, **said):
        self.other, self.path, self.clock, self.said = other, path, clock, said
        self.first, self.began = said["done"], clock()
        self._write(self.began)

    def advance(self, n=1, note=None):
        self.other.advance(n, note)
        self.said |= {"done": self.said["done"] + n} | ({"note": note} if note else {})
        if (now := self.clock()) - self.written >= REPORT_EVERY_S:
            self._write(now)

    def _write(self, now):
        self.written = now
        rate = (self.said["done"] - self.first) / (now - self.began) if now > self.began else None
        with suppress(OSError):
            with open(f"{self.path}.new", "w", encoding="utf-8") as file:
                json.dump(self.said | {"per_second": rate}, file, default=float)
            os.replace(f"{self.path}.new", self.path)


@contextmanager
def reported(path):
    """Within the block `progress`, also of processes that begin there, says in the file `path` how far it is; then the file is gone."""
    os.environ[REPORT] = str(path)
    try:
        yield
    finally:
        del os.environ[REPORT]
        for left in (path, f"{path}.new"):
            with suppress(OSError):
                os.unlink(left)


def duration(seconds):
    """Seconds as a person says them: 40 s, 12 min, 3.5 h."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def wants_bars():
    """True where the process that started this one shows its bars though stderr is a pipe or file: a launcher, or the browser."""
    return os.environ.get("CLTDB_BARS") == "1"


@contextmanager
def progress(label, *, total, unit, done=0):
    """A `Progress`: on a terminal a bar, elsewhere a line in the log now and then; `done` units were finished by an earlier run."""
    if int(os.environ.get("RANK", "0")) != 0:
        yield Progress()
        return
    with _shown(label, total, unit, done) as shown:
        path = os.environ.get(REPORT)
        yield Report(shown, path, label=label, total=total, unit=unit, done=done) if path else shown


@contextmanager
def _shown(label, total, unit, done):
    if not (sys.stderr.isatty() or wants_bars()):
        yield Lines(label, total=total, unit=unit, done=done)
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, desc=label, unit=f" {unit}", unit_scale=True, file=sys.stderr, leave=False) as bar:
        yield Bar(bar)


@contextmanager
def stopwatch():
    """A function that returns the seconds since the block began."""
    start = time.monotonic()
    yield lambda: time.monotonic() - start
