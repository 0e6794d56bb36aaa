"""What stays with a job: `python supervisor.py END GRACE_S LOCK COMMAND…` runs a command to its end, and writes how it ended to the file END.

It needs no server: where the server is killed the job goes on, and the next server reads its end. SIGTERM makes it interrupt the command, and
kill it GRACE_S seconds later. It leaves nothing behind: on Linux it adopts the processes that its command leaves, in whatever session, and
kills them. LOCK: a file descriptor, held for as long as one of both lives. Imports the standard library alone, and starts in some 20 ms.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

SET_CHILD_SUBREAPER = 36
"""Of Linux's prctl: orphans among the descendants of this process become its children."""


def main(end, grace_s, lock, *command):
    """Runs the command; returns when neither it nor anything it started is left."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until there is a process to interrupt
    process = subprocess.Popen(command, pass_fds=[int(lock)], preexec_fn=_take_signals)

    def interrupt(*_):
        process.send_signal(signal.SIGINT)
        signal.setitimer(signal.ITIMER_REAL, float(grace_s))

    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.signal(signal.SIGTERM, interrupt)
    _take_signals()
    exit_status = process.wait()
    _end_orphans()
    with open(f"{end}.tmp", "w") as file:
        json.dump({"exit_status": exit_status, "ended_at": time.time()}, file)
    os.replace(f"{end}.tmp", end)


def _take_signals():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _end_orphans():
    """Kills the children that this process has, and theirs, which it adopts then."""
    while children := _children():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children():
    """Process ids of this process's children; none where the system does not say."""
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]
    return []


if __name__ == "__main__":
    main(*sys.argv[1:])
