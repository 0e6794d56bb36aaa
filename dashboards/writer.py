"""Brings the database up to date after users made something: `cltdb db annotations`, in a process of its own.

One process at a time; what comes while it runs is taken up by the next one. The logs hold everything already, and pages read those, so nobody
waits for it: while `cltdb run` writes, the process waits its turn.
"""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from cltdb.errors import shown_end

logger = logging.getLogger(__name__)
DELAY_S = 1.0
"""After a change others often follow."""


class Writer:
    """Starts the command in the folder `root` of a project whose database is at `database`."""

    def __init__(self, root, database):
        self.root, self.database = Path(root), Path(database)
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._wanted, self._thread, self._process = False, None, None

    def wake(self):
        """Has what was appended to the logs brought into the database, soon."""
        with self._lock:
            self._wanted = True
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def close(self):
        """Ends the process; what it did not write, the next one does."""
        self._closed.set()
        with self._lock:
            process, thread = self._process, self._thread
        if process is not None:
            process.terminate()
        if thread is not None:
            thread.join()

    def _work(self):
        while not self._closed.wait(DELAY_S):
            with self._lock:
                if not self._wanted or self._closed.is_set():
                    self._thread = self._process = None  # under the same lock: whoever wakes it later starts another thread
                    return
                self._wanted = False
                self._process = self._start() if self.database.exists() else None
            if self._process is not None:
                _, said = self._process.communicate()
                if self._process.returncode and not self._closed.is_set():
                    reason = said.strip().rpartition("\n")[2] or f"the process ended with {shown_end(self._process.returncode)}"
                    logger.warning("annotations are saved, but not in the database yet: %s", reason)
        with self._lock:
            self._thread = self._process = None

    def _start(self):
        package = str(Path(__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cltdb", "db", "annotations"],  # -P: modules in the project's folder are not meant
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
