"""Memory: how much this machine has, what to say when it runs out, keeping what was freed in the process, where the C library is glibc, and
when not to look for garbage.

Tensors are allocated and freed every step; by default glibc gives large ones back to the system each time and pays for every page
again. Measured on two cores: half of the time of a training step.
"""

import ctypes
import gc
import os
import platform
from contextlib import contextmanager

from cltdb.errors import CltdbError, shown

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # malloc.h


def keep_freed_memory():
    """Tells glibc to serve every allocation from one heap that only grows; elsewhere does nothing."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(M_ARENA_MAX, 1)


@contextmanager
def without_garbage():
    """For work that imports much and leaves no garbage: Python does not look for any, and counts what is there afterwards as old.

    Of the six CPU seconds that it takes to import torch and a model of transformers, which make 390,000 objects, one went into looking.
    """
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else someone has set objects aside for longer
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if looks:
            gc.enable()


def machine_bytes():
    """Bytes of main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def ran_out(error, where):
    """The CltdbError for an exception that says that memory ran out, of this machine or of a GPU, else None."""
    words = ("not enough memory", "can't allocate memory", "out of memory", "Unable to allocate")
    is_memory = isinstance(error, MemoryError) or isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    if not is_memory:
        return None
    return CltdbError(
        where,
        found=f"not enough memory ({shown(str(error) or type(error).__name__, quoted=False)})",
        expected="a run that fits",
        do="lower what the stage holds at once (n_features, batch_tokens, batch_seqs, top, window, max_edges); finished artifacts are kept",
    )
