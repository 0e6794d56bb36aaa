"""One rank of several: trains the dictionaries of the settings in a JSON file, one after the other, and writes what came out.

RANK=… WORLD_SIZE=… MASTER_ADDR=… MASTER_PORT=… python rank_worker.py CASES.json FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch
from sources import random_source

from cltdb.spec import Train
from cltdb.train import engine
from cltdb.train.loop import train
from cltdb.train.parallel import Parallel

STEPS, BATCH = 30, 24


def train_case(settings, directory, *, parallel):
    source, heldout = random_source(STEPS * BATCH, 3, 16), random_source(120, 3, 16, seed=1)
    train(
        Train(**settings),
        source=source,
        heldout=heldout,
        directory=directory,
        seed=0,
        dict_id="d",
        experiment="e",
        parallel=parallel,
    )


def main(cases, folder):
    torch.set_num_threads(1)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    engine.import_deepspeed("cpu")
    for name, settings in json.loads(Path(cases).read_text()).items():
        shards = settings.get("launch", {}).get("feature_parallel", 1)
        parallel = Parallel(rank=rank, world_size=world_size, n_shards=shards)
        train_case(settings, Path(folder) / name, parallel=parallel)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
