"""Weights & Biases: what its runs are told."""

import sys

import pytest
from train.test_train import metrics, trained

from cltdb.errors import CltdbError


def test_a_run_is_told_all_metrics(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    seen, log = {}, wandb.Run.log
    monkeypatch.setattr(
        wandb.Run,
        "log",
        lambda run, data, step: (seen.update({(step, key): data[key] for key in data}), log(run, data, step=step)),
    )
    trained(tmp_path / "run", wandb="project")
    rows = metrics(tmp_path / "run").to_dicts()
    name = lambda row: row["name"] if row["layer"] is None else f"layer {row['layer']}/{row['name']}"  # noqa: E731
    assert seen == {(row["step"], name(row)): row["value"] for row in rows}
    (path,) = tmp_path.glob("wandb/offline-run-*/run-d.wandb")
    assert path.stat().st_size > 0


def test_a_package_that_is_not_there_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(CltdbError, match="without the package wandb"):
        trained(tmp_path, wandb="project")
