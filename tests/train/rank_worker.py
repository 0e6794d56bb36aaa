"""The ranks of a training, which part once the imports are made: they train the dictionaries of the settings in a JSON file, one after
the other, and write what came out. Beside them a process that finds no network interface trains the cases for it alone.

WORLD_SIZE=… MASTER_ADDR=… MASTER_PORT=… python rank_worker.py CASES.json FOLDER
"""

import json
import os
import sys
import traceback
from pathlib import Path

import torch
from worlds.batches import MemorySource, random_source

from cltdb.train import engine
from cltdb.train.loop import train
from cltdb.train.parallel import Parallel
from cltdb.train.run import TrainingRun
from cltdb.train.settings import Train

STEPS, BATCH = 20, 24
ALONE = "alone"
"""Begins the names of the cases of a process that finds no network interface."""


class Stopped(Exception):
    """Stands for a kill."""


def train_case(settings, directory, *, parallel):
    """settings: of `spec.Train`; with `stop_at` the run ends before that step, as if killed."""
    settings, make_step = dict(settings), TrainingRun.make_step
    stop_at = settings.pop("stop_at", None)

    def stopping_step(run, batch):
        if run.step == stop_at:
            raise Stopped
        return make_step(run, batch)

    rows = random_source(STEPS * BATCH + 120, 3, 16)
    source, heldout = (MemorySource(rows.x[part], rows.y[part]) for part in (slice(0, -120), slice(-120, None)))
    TrainingRun.make_step = stopping_step
    try:
        run = TrainingRun(Train(**settings), source=source, heldout=heldout, seed=0, device="cpu", parallel=parallel)
        train(run, directory=directory, dict_id="d", experiment="e")
    except Stopped:
        pass
    finally:
        TrainingRun.make_step = make_step


def train_rank(rank, cases, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    world_size = int(os.environ["WORLD_SIZE"])
    engine.import_deepspeed("cpu")
    for name, settings in cases.items():
        shards = settings.get("launch", {}).get("feature_parallel", 1)
        parallel = Parallel(rank=rank, world_size=world_size, n_shards=shards)
        train_case(settings, folder / name, parallel=parallel)


def train_alone(cases, folder):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    os.environ["GLOO_SOCKET_IFNAME"] = "nowhere"
    for name, settings in cases.items():
        train_case(settings, folder / name, parallel=Parallel())
    assert torch.distributed.get_backend() == "fake"


def main(cases, folder):
    """Exit status 1 when any process failed."""
    from deepspeed.runtime.zero.muon import original_muon  # noqa: F401  takes seconds: once for all processes

    torch.set_num_threads(1)
    cases, folder = json.loads(Path(cases).read_text()), Path(folder)
    alone = {name: settings for name, settings in cases.items() if name.startswith(ALONE)}
    shared = {name: settings for name, settings in cases.items() if name not in alone}
    jobs = [(train_rank, rank, shared, folder) for rank in range(int(os.environ["WORLD_SIZE"]) if shared else 0)]
    pids = []
    for job, *arguments in jobs + ([(train_alone, alone, folder)] if alone else []):
        pid = os.fork()
        if pid == 0:
            try:
                job(*arguments)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
