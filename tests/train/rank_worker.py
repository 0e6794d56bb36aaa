"""The ranks of a training, which part once the imports are made: they train the dictionaries of the settings in a JSON file, one after
the other, and write what came out.

WORLD_SIZE=… MASTER_ADDR=… MASTER_PORT=… python rank_worker.py CASES.json FOLDER
"""

import json
import os
import sys
import traceback
from pathlib import Path

import deepspeed  # noqa: F401
import torch
from worlds.batches import MemorySource, random_source

from cltdb.train import engine
from cltdb.train.loop import train
from cltdb.train.parallel import Parallel
from cltdb.train.run import TrainingRun
from cltdb.train.settings import Train

STEPS, BATCH = 30, 24


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
    torch.set_num_threads(1)
    world_size = int(os.environ["WORLD_SIZE"])
    engine.import_deepspeed("cpu")
    for name, settings in json.loads(Path(cases).read_text()).items():
        shards = settings.get("launch", {}).get("feature_parallel", 1)
        parallel = Parallel(rank=rank, world_size=world_size, n_shards=shards)
        train_case(settings, Path(folder) / name, parallel=parallel)


def main(cases, folder):
    """Exit status 1 when any rank failed."""
    ranks = []
    for rank in range(int(os.environ["WORLD_SIZE"])):
        pid = os.fork()
        if pid == 0:
            try:
                train_rank(rank, cases, folder)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        ranks.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in ranks]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
