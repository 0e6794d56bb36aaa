"""Several processes against one, and one without network: the same losses, counts and dictionaries, in every ZeRO stage and with shared features."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from command_line import PATIENCE_S
from rank_worker import ALONE, BATCH, train_case

from cltdb.model.transcoder import load_dictionary
from cltdb.train import checkpoint
from cltdb.train.parallel import Parallel

BASE = dict(
    n_features=32,
    l0=3,
    batch_tokens=BATCH,
    init_l0=8,
    warmup_steps=2,
    log_every_steps=1,
    checkpoint_every_steps=10,
    heldout_every_steps=15,
    dead_window_tokens=BATCH,
    aux_features=4,
    aux_coefficient=0.03,
    gradient_clip=0.5,
)
KINDS = {
    "batchtopk": {},
    "jumprelu": {"activation": "jumprelu", "preact_coefficient": 1e-3, "skip": True},
    "topk": {"activation": "topk", "kind": "plt"},
    "orthogonal": {"orthogonality": {"coefficient": 3.0, "scope": "target", "weight_by": "coactivation", "sample": 40}},
    "orthogonal-source": {"activation": "relu", "orthogonality": {"scope": "source", "sample": 48}},
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
WITHOUT_NETWORK = {f"{ALONE}-zero{stage}": stage for stage in (0, 2)}
"""Layouts, {name: ZeRO stage}, of a single process that has no network interface, not even loopback; it runs beside the others."""
CASES = [
    (n, layout, kind)
    for n in LAYOUTS
    for layout in LAYOUTS[n]
    for kind in KINDS
    if kind in ("batchtopk", "orthogonal") or layout in ("zero0", "shards", "2x2")
]


def settings_of(n_processes, layout, kind):
    alone = layout in WITHOUT_NETWORK
    launch, stage = ({}, WITHOUT_NETWORK[layout]) if alone else LAYOUTS[n_processes][layout]
    launch, deepspeed = {"processes": 1 if alone else n_processes, **launch}, {"zero_optimization": {"stage": stage}}
    return {**BASE, **KINDS[kind], "launch": launch, "deepspeed": deepspeed}


def run_ranks(n_processes, cases, folder):
    """Trains every case in n_processes; their output when one fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    (folder / "cases.json").write_text(json.dumps(cases))
    here = Path(__file__).parent
    paths = os.pathsep.join(str(folder) for folder in here.parents[:2])
    environment = {
        **os.environ,
        "WORLD_SIZE": str(n_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }
    done = subprocess.run(
        [sys.executable, str(here / "rank_worker.py"), str(folder / "cases.json"), str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=5 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """A function of cases [(n_processes, layout, kind)] that trains those of one n_processes together and gives {case: directory}; of
    (1, None, kind) the single process's."""
    done = {}

    def trained(cases):
        for n_processes in {n for n, _, _ in cases}:
            folder = tmp_path_factory.mktemp(f"ranks{n_processes}")
            missing = {
                f"{layout}-{kind}": (n, layout, kind)
                for n, layout, kind in cases
                if n == n_processes and (n, layout, kind) not in done
            }
            if missing and n_processes == 1:
                for name, (_, _, kind) in missing.items():
                    train_case({**BASE, **KINDS[kind]}, folder / name, parallel=Parallel())
            elif missing:
                run_ranks(n_processes, {name: settings_of(*case) for name, case in missing.items()}, folder)
            done.update({case: folder / name for name, case in missing.items()})
        return done

    return trained


def assert_like_one_process(trainer, cases):
    done = trainer([*cases, *{(1, None, kind) for _, _, kind in cases}])
    for case in cases:
        assert_equal_results(done[case], done[1, None, case[2]], case)


def test_two_processes_and_one_without_a_network_interface_train_what_one_does(trainer):
    cases = [(2, layout, "batchtopk") for layout in ("zero1", "shards", *WITHOUT_NETWORK)]
    assert_like_one_process(trainer, [*cases, (2, "shards", "orthogonal")])


@pytest.mark.slow
@pytest.mark.parametrize("n_processes", LAYOUTS)
def test_every_zero_stage_and_shards_of_features_train_what_one_process_does(trainer, n_processes):
    assert_like_one_process(trainer, [case for case in CASES if case[0] == n_processes])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [((1, None), (4, "2x2-zero1")), ((2, "zero2"), (1, None)), ((2, "shards"), (2, "zero3"))], ids=str
)
def test_a_run_goes_on_in_another_number_of_processes(trainer, tmp_path, before, after):
    for (n_processes, layout), last in ((before, {"stop_at": 14}), (after, {})):
        settings = settings_of(n_processes, layout, "batchtopk") if layout else dict(BASE)
        run_ranks(n_processes, {"run": settings | last}, tmp_path)
        assert bool(checkpoint.steps(tmp_path / "run")) == bool(last)
    reference = (1, None, "batchtopk")
    assert_equal_results(tmp_path / "run", trainer([reference])[reference], (before, after))


def metrics(directory):
    return pl.read_parquet(directory / "tables/metrics/*.parquet").sort("name", "step", "layer")


def assert_equal_results(directory, reference, what):
    got, wanted = metrics(directory), metrics(reference)
    assert got.select("name", "step", "layer").equals(wanted.select("name", "step", "layer"))
    for name in wanted["name"].unique():
        values = [torch.tensor(frame.filter(pl.col("name") == name)["value"].to_numpy()) for frame in (got, wanted)]
        assert torch.allclose(*values, rtol=1e-4, atol=1e-6), (what, name, values)
        if "loss_orthogonality" in wanted["name"] and name in (
            "loss_orthogonality",
            "grad_norm",
        ):  # the weights are the same at first
            first = [values[0][0], values[1][0]]
            assert first[1] > 0 and torch.allclose(*first, rtol=1e-6, atol=0), (what, name, first)
    assert wanted.filter(pl.col("name") == "dead_frac")["value"].max() > 0  # the auxiliary loss has had something to do
    dictionaries = [load_dictionary(directory) for directory in (directory, reference)]
    for name in ("W_enc", "b_enc", "b_dec", "threshold", "W_skip"):
        tensors = [getattr(dictionary, name) for dictionary in dictionaries]
        assert (tensors[0] is None) == (tensors[1] is None)
        assert tensors[0] is None or close(*tensors), name
    assert all(close(*pair) for pair in zip(dictionaries[0].W_dec, dictionaries[1].W_dec, strict=True))


def close(got, wanted):
    return ((got - wanted).norm() / wanted.norm().clamp(min=1e-12)).item() < 1e-4
