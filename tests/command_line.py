"""The command line as a user has it: a process of its own, with its exit status and what it says."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def cltdb(project, *arguments, file_size_kb=None, **environment):
    """The finished process of one command, in an environment as a shell has it."""
    command = [sys.executable, "-m", "cltdb", *arguments]
    if file_size_kb:
        command = ["bash", "-c", f"trap '' XFSZ; ulimit -f {file_size_kb}; exec \"$@\"", "bash", *command]
    return subprocess.run(
        command,
        cwd=project,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )


def said(failed):
    """The one line on which a failed command says what is wrong, and nothing else."""
    assert failed.returncode == 1, failed.stdout
    return in_one_form(failed.stderr)


def in_one_form(errors):
    """What was said, if it is one line with all four parts."""
    assert len(errors.strip().splitlines()) == 1 and errors.startswith("error: "), errors
    assert all(part in errors for part in (": found ", "; expected ", "; do this: ")), errors
    return errors
