"""What is made once for all processes of a test run."""

import fcntl
import os
import shutil


def made_once(factory, name, make):
    """The folder `name`, which `make(folder)` fills in the first process that asks for it; it is only read: who changes it takes a copy.

    factory: pytest's `tmp_path_factory`.
    """
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = base / f"shared-{name}", base / f"shared-{name}.made"
    with open(base / f"shared-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
