"""Several processes against one: the same losses, counts and dictionaries, in every ZeRO stage and with shared features."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from rank_worker import BATCH, train_case

from cltdb.model.transcoder import load_dictionary
from cltdb.train.parallel import Parallel

BASE = dict(
    n_features=32,
    l0=3,
    batch_tokens=BATCH,
    init_l0=8,
    warmup_steps=2,
    learning_rate=3e-3,
    log_every_steps=1,
    checkpoint_every_steps=10,
    heldout_every_steps=15,
    dead_window_tokens=100,
    aux_features=4,
    gradient_clip=0.5,
)
KINDS = {
    "batchtopk": {},
    "jumprelu": {"activation": "jumprelu", "preact_coefficient": 1e-3, "skip": True},
    "topk": {"activation": "topk", "kind": "plt"},
}
LAYOUTS = {
    2: {f"zero{stage}": ({}, stage) for stage in range(4)}
    | {"shards": ({"feature_parallel": 2}, 0), "shards-zero2": ({"feature_parallel": 2}, 2)},
    4: {
        "2x2": ({"feature_parallel": 2}, 0),
        "2x2-zero1": ({"feature_parallel": 2}, 1),
        "2x2-zero3": ({"feature_parallel": 2}, 3),
    },
}
CASES = [
    (n, layout, kind)
    for n in LAYOUTS
    for layout in LAYOUTS[n]
    for kind in KINDS
    if kind == "batchtopk" or layout in ("zero0", "shards", "2x2")
]


def settings_of(n_processes, layout, kind):
    launch, stage = LAYOUTS[n_processes][layout]
    deepspeed = {"zero_optimization": {"stage": stage}}
    return {**BASE, **KINDS[kind], "launch": {"processes": n_processes, **launch}, "deepspeed": deepspeed}


def run_ranks(n_processes, cases, folder):
    """Trains every case in n_processes; their output when one fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    (folder / "cases.json").write_text(json.dumps(cases))
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parents[1])])
    common = {
        **os.environ,
        "WORLD_SIZE": str(n_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": paths,
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(here / "rank_worker.py"), str(folder / "cases.json"), str(folder)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(n_processes)
    ]
    outputs = [rank.communicate(timeout=400)[0] for rank in ranks]
    assert not any(rank.returncode for rank in ranks), "\n".join(output[-2500:] for output in outputs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """{(n_processes, layout, kind): directory}, {kind: directory of the single process}."""
    many, alone = {}, {}
    for n_processes in LAYOUTS:
        folder = tmp_path_factory.mktemp(f"ranks{n_processes}")
        cases = {f"{layout}-{kind}": settings_of(*case) for case in CASES for n, layout, kind in [case] if n == n_processes}
        run_ranks(n_processes, cases, folder)
        many |= {(n, layout, kind): folder / f"{layout}-{kind}" for n, layout, kind in CASES if n == n_processes}
    for kind in KINDS:
        alone[kind] = tmp_path_factory.mktemp("alone") / kind
        train_case({**BASE, **KINDS[kind]}, alone[kind], parallel=Parallel())
    return many, alone


def metrics(directory):
    return pl.read_parquet(directory / "tables/metrics/*.parquet").sort("name", "step", "layer")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_many_processes_train_what_one_does(trained, case):
    many, alone = trained
    got, wanted = metrics(many[case]), metrics(alone[case[2]])
    assert got.select("name", "step", "layer").equals(wanted.select("name", "step", "layer"))
    for name in wanted["name"].unique():
        values = [torch.tensor(frame.filter(pl.col("name") == name)["value"].to_numpy()) for frame in (got, wanted)]
        assert torch.allclose(*values, rtol=1e-4, atol=1e-6), (name, (values[0] - values[1]).abs().max())
    assert wanted.filter(pl.col("name") == "dead_frac")["value"].max() > 0  # the auxiliary loss has had something to do
    dictionaries = [load_dictionary(directory) for directory in (many[case], alone[case[2]])]
    for name in ("W_enc", "b_enc", "b_dec", "threshold", "W_skip"):
        tensors = [getattr(dictionary, name) for dictionary in dictionaries]
        assert (tensors[0] is None) == (tensors[1] is None)
        assert tensors[0] is None or close(*tensors), name
    assert all(close(*pair) for pair in zip(dictionaries[0].W_dec, dictionaries[1].W_dec, strict=True))


def close(got, wanted):
    return ((got - wanted).norm() / wanted.norm().clamp(min=1e-12)).item() < 1e-4
