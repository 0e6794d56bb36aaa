"""Which device a name such as `auto` or `cuda:1` stands for on this machine. Imports torch when it is asked."""

import os

from cltdb.errors import CltdbError


def resolved_device(device):
    """The device that a name stands for: auto is cuda where there is one (of a launch's processes each its own), and cpu elsewhere."""
    import torch

    if device != "auto":
        return device
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}" if "LOCAL_RANK" in os.environ else "cuda"


def present_device(device):
    """The device of this machine that a name stands for, with its number; CltdbError where the named one is not there."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise CltdbError(
            "model.device",
            found=f"{device}, on a machine without a CUDA device",
            expected="cpu, cuda or auto",
            do="set model.device: auto",
        )
    if device.startswith("cuda:") and device[5:].isdecimal() and int(device[5:]) >= torch.cuda.device_count():
        raise CltdbError(
            "model.device",
            found=f"{device}, on a machine with {torch.cuda.device_count()} CUDA devices",
            expected=f"cuda:0 to cuda:{torch.cuda.device_count() - 1}",
            do="choose one of these, or auto",
        )
    return ("cuda:0" if torch.cuda.is_available() else "cpu") if device == "auto" else device
