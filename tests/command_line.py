"""The command line as a user has it: a process of its own, with its exit status and what it says."""

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENCE_S = 120


def cltdb(project, *arguments, **environment):
    """The finished process of one command, in an environment as a shell has it."""
    return subprocess.run(
        [sys.executable, "-m", "cltdb", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


KILLED = """
import os, runpy, signal, sys
from pathlib import Path
pattern, *sys.argv[1:] = sys.argv[1:]

def look(event, _):
    if event in ("open", "os.rename") and next(Path("artifacts").glob(pattern), None):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(look)
runpy.run_module("cltdb", run_name="__main__", alter_sys=True)
"""
"""Runs a command that kills itself at the first file that it opens or renames once a path below its workspace matches a pattern."""


def kill_when(reached, project, *arguments):
    """Runs a command that is killed (-9) once a path below the project's workspace matches the pattern `reached`, or reached() is true."""
    words = ["-m", "cltdb", *arguments] if callable(reached) else ["-c", KILLED, reached, *arguments]
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:
        while callable(reached) and not reached() and child.poll() is None:
            time.sleep(0.001)
        if callable(reached):
            child.kill()
        said = child.communicate()[1]
        assert child.returncode == -signal.SIGKILL, f"the command ended before it could be killed: {said}"


@contextmanager
def no_larger_files(size):
    """Files of this process, and of those that it starts, end at `size` bytes: as on a full disk, writing more is an error."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def said(failed):
    """The one line on which a failed command says what is wrong, and nothing else."""
    assert failed.returncode == 1, failed.stdout
    return in_one_form(failed.stderr)


def in_one_form(errors):
    """What was said, if it is one line with all four parts."""
    assert len(errors.strip().splitlines()) == 1 and errors.startswith("error: "), errors
    assert all(part in errors for part in (": found ", "; expected ", "; do this: ")), errors
    return errors
