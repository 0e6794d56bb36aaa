"""Checkpoints as safetensors: parameters, optimizer moments, schedules' state, metric rows; nothing pickled.

The data position is the step itself: the cache gives the same batch for the same (seed, step). Random numbers are drawn only to
initialise. A run resumed with the same number of threads repeats the uninterrupted one bit for bit.
"""

import json

import torch

from cltdb.errors import DataError
from cltdb.train import engine as engines
from cltdb.workspace import write_safetensors

CHECKPOINT_FILE = "checkpoint.safetensors"
FORMAT_VERSION = 1


def save(run, path):
    """Replaces the checkpoint by the run's present state."""
    tensors = {**engines.state(run.engine), "silent_tokens": run.silent_tokens}
    header = {
        "format_version": FORMAT_VERSION,
        "step": run.step,
        "coefficient": run.coefficient.tolist(),
        "threads": torch.get_num_threads(),
        "rows": run.rows,
    }
    write_safetensors(path, tensors, metadata={"cltdb": json.dumps(header)})


def load(run, path):
    """Puts the run where the checkpoint was saved."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=str(run.device)) as file:
            header = json.loads(file.metadata()["cltdb"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            str(path),
            found=f"a damaged checkpoint ({error})",
            expected="a checkpoint as cltdb wrote it",
            do="remove it and run again: training starts anew",
        ) from error
    run.silent_tokens = tensors.pop("silent_tokens")
    engines.load_state(run.engine, tensors, step=header["step"])
    run.step, run.coefficient = header["step"], torch.tensor(header["coefficient"])
    run.rows = [tuple(row) for row in header["rows"]]
