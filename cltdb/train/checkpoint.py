"""Checkpoints: a directory per step with a safetensors file per logical tensor and `state.json`, nothing pickled.

Tensors are whole, whatever the number of processes, the ZeRO stage or the shards of the features, so a run resumes with any of these.
The data position is the step itself: a source gives the same batch for the same (seed, step). Random numbers are drawn for the
initial weights alone. On the CPU, one process with the same number of threads repeats the uninterrupted run bit for bit.
"""

import json
import logging
import os
import shutil
from pathlib import Path

import torch
from torch import distributed

from cltdb.engine.workspace import explain_full_disk, read_json, write_json, write_safetensors
from cltdb.errors import DataError

logger = logging.getLogger(__name__)
FOLDER, STATE_FILE, FORMAT_VERSION = "checkpoints", "state.json", 2


def save(run, directory):
    """Writes the run's present state to `<directory>/checkpoints/<step>`; every rank calls it, rank 0 writes."""
    final = Path(directory) / FOLDER / f"{run.step:08d}"
    aside = final.with_suffix(".partial")
    with explain_full_disk(final):
        for name, parts in run.engine.tensors():
            if parts:
                write_safetensors(aside / f"{name}.safetensors", parts)
        features = {name: run.parallel.collect_features(getattr(run, name).T) for name in ("silent_tokens", "lift")}
        if run.parallel.rank == 0:
            write_safetensors(aside / "features.safetensors", features)
            state = {
                "format_version": FORMAT_VERSION,
                "step": run.step,
                "n_features": run.settings.n_features,
                "coefficient": run.coefficient.tolist(),
                "loss_scaling": run.engine.loss_scaling(),
                "threads": torch.get_num_threads(),
                "best": run.best,
                "checks": run.checks,
                "rows": run.rows,
            }
            write_json(aside / STATE_FILE, state)
            if final.exists():
                shutil.rmtree(final)
            os.replace(aside, final)
    _wait(run)


def _wait(run):
    if run.parallel.world_size > 1:
        distributed.barrier()


def steps(directory):
    """The steps of the finished checkpoints in a train artifact's directory, ascending."""
    return sorted(
        int(path.parent.name) for path in (Path(directory) / FOLDER).glob(f"*/{STATE_FILE}") if path.parent.name.isdigit()
    )


def keep(directory, wanted):
    """Removes every checkpoint whose step is not wanted, and what a killed save left."""
    for path in (Path(directory) / FOLDER).glob("*"):
        if not path.name.isdigit() or int(path.name) not in wanted:
            shutil.rmtree(path)


def load(run, directory, step):
    """Puts the run where the checkpoint of `step` was saved."""
    folder = Path(directory) / FOLDER / f"{step:08d}"
    state = read_json(folder / STATE_FILE)
    if state.get("format_version") != FORMAT_VERSION:
        raise DataError(
            str(folder / STATE_FILE),
            found=f"format_version {state.get('format_version')!r}",
            expected=str(FORMAT_VERSION),
            do="finish the run with the cltdb version that began it, or remove the folder: training starts anew",
        )
    mine = run.parallel.features(run.settings.n_features)
    features = read_tensors(folder, "features")
    run.silent_tokens, run.lift = (features[name][mine].T.contiguous().to(run.device) for name in ("silent_tokens", "lift"))
    run.stand_still()
    scaling = state.get("loss_scaling", {})  # not there before 28 November 2026
    run.engine.set_loss_scaling(scaling)
    n_made = state["step"] - scaling.get("skipped_steps", 0)
    run.engine.load_tensors(lambda name: read_tensors(folder, name), step=n_made)
    run.step, run.coefficient = state["step"], torch.tensor(state["coefficient"])
    run.best, run.checks = state["best"], state["checks"]
    run.rows = [tuple(row) for row in state["rows"]]
    if run.parallel.world_size == 1 and run.device == "cpu":
        _same_threads(state["threads"])


def _same_threads(threads):
    """Sets the number of threads that the checkpoint was made with: with another number, sums are rounded differently."""
    if threads != torch.get_num_threads():
        logger.info("continues with %d threads, as before, instead of %d", threads, torch.get_num_threads())
        torch.set_num_threads(threads)


def read_tensors(folder, name):
    """{"value": …, moments} of one logical tensor."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / f"{name}.safetensors"
    try:
        return load_file(path)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise DataError(
            str(path),
            found=f"a damaged checkpoint ({error})",
            expected="a checkpoint as cltdb wrote it",
            do=f"remove {folder} and run again: training goes on from the checkpoint before, or starts anew",
        ) from error
