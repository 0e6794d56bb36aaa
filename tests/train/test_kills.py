"""`kill -9` at random moments of a training that `cltdb run` makes: twenty times, then the end equals the uninterrupted run's, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from command_line import ROOT, cltdb
from worlds import projects

from cltdb.model.transcoder import load_dictionary

N_KILLS = 20
SPEC = """
name: small
model: {{id: toyworld}}
activations: {{text: [{{toyworld: true}}], context: 64, train_tokens: 60_000, heldout_tokens: 4_000}}
train: {{n_features: 256, l0: 8, batch_tokens: 256, epochs: 4, checkpoint_every_steps: 25, heldout_every_steps: 100, activation: {activation}}}
"""


def new_project(folder, activation):
    return projects.new(folder, SPEC.format(activation=activation))


def last_checkpoint(folder):
    states = folder.glob("artifacts/train/*.partial/checkpoints/*/state.json")
    return max((int(path.parent.name) for path in states if path.parent.name.isdigit()), default=0)


def killed_after_another_checkpoint(folder, moment):
    """Whether a run was killed, `moment` seconds after it had made one more checkpoint than there were."""
    command = [sys.executable, "-m", "cltdb", "run", "small.yaml", "--until", "train"]
    before = last_checkpoint(folder)
    child = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while child.poll() is None and last_checkpoint(folder) == before:
        time.sleep(0.002)
    time.sleep(moment)
    alive = child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    return alive


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["batchtopk", "jumprelu"])
def test_twenty_kills_change_nothing(tmp_path, activation):
    whole, killed = (new_project(tmp_path / name, activation) for name in ("whole", "killed"))
    assert cltdb(whole, "run", "small.yaml", "--until", "train").returncode == 0
    moments = random.Random(0)
    kills = [killed_after_another_checkpoint(killed, moments.uniform(0, 0.6)) for _ in range(N_KILLS)]
    assert all(kills), "a run ended before it was killed"
    assert cltdb(killed, "run", "small.yaml", "--until", "train").returncode == 0
    a, b = (load_dictionary(Path(next(folder.glob("artifacts/train/*/dictionary.json"))).parent) for folder in (whole, killed))
    for name in ("W_enc", "b_enc", "b_dec", "threshold"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert all(map(torch.equal, a.W_dec, b.W_dec))
    rows = [pl.read_parquet(folder / "artifacts/train/*/tables/metrics/*.parquet") for folder in (whole, killed)]
    assert rows[0].sort("step", "name", "layer").equals(rows[1].sort("step", "name", "layer")) and len(rows[0]) > 1000
