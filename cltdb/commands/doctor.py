"""`cltdb doctor`: checks versions, devices, memory and disk, that the workspace can be written and the toy model loads."""

import os
import platform
import shutil
import sys

from cltdb.commands.common import Command, this_project
from cltdb.errors import CltdbError


def doctor_command(options):
    bad = 0
    for name, ok, detail in _checks():
        bad += not ok
        print(f"{'ok ' if ok else 'BAD'}  {name:<14} {detail}")
    if bad:
        raise CltdbError("cltdb doctor", found=f"{bad} problems, marked BAD above", expected="none", do="mend them")


def _checks():
    """(name, ok, detail) of every check."""
    from cltdb.engine.records import PACKAGES, versions

    project = this_project()
    yield "python", sys.version_info >= (3, 11), platform.python_version()
    found = versions()
    for package in PACKAGES:
        yield package, package in found, found.get(package, "not installed: pip install cltdb")
    yield _device()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield "memory", memory > 4, f"{memory:.0f} GB, {os.cpu_count()} cores"
    free = shutil.disk_usage(project.root).free / 1e9
    yield "disk", free > 1, f"{free:.0f} GB free at {project.root}"
    yield (
        "workspace",
        os.access(project.workspace if project.workspace.exists() else project.root, os.W_OK),
        str(project.workspace),
    )
    yield (
        "database",
        True,
        str(project.database) + ("" if project.database.exists() else " (not made yet: cltdb run SPEC)"),
    )
    yield _toy_model()


def _device():
    import torch

    if torch.cuda.is_available():
        return "device", True, f"cuda: {torch.cuda.get_device_name()}"
    return "device", True, "cpu (no CUDA device)"


def _toy_model():
    from cltdb.model.loading import load_model

    try:
        lm = load_model("toyworld", device="cpu")
    except CltdbError as error:
        return "toy model", False, str(error)
    return "toy model", True, f"{lm.n_layers} layers, d_model {lm.d_model}"


COMMAND = Command("check this machine: versions, device, memory, disk, database", "cltdb doctor", function=doctor_command)
