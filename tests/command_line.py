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


def kill_when(reached, project, *arguments):
    """Starts a command and kills it (-9) once a path below the project's workspace matches the pattern `reached`, or reached() is true."""
    is_reached = reached if callable(reached) else lambda: list((project / "artifacts").glob(reached))
    words, environment = [sys.executable, "-m", "cltdb", *arguments], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached():
            assert child.poll() is None, f"the command ended before it could be killed: {child.stderr.read()}"
            if time.monotonic() > deadline:
                child.kill()
                raise TimeoutError(reached)
            time.sleep(0.001)
        child.kill()


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
