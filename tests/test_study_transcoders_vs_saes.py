"""The study experiments/transcoders-vs-saes: its spec is read, its figures are right on made-up curves, and the whole runs small."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import cltdb

from cltdb.spec import load_points

STUDY = Path(__file__).parent.parent / "experiments/transcoders-vs-saes"
figures = runpy.run_path(str(STUDY / "figures.py"))


def test_the_spec_has_every_kind_with_every_seed():
    points = [loaded.experiment for loaded in load_points(STUDY / "spec.yaml")]
    found = [(point.train.kind, point.train.skip, point.train.l0, point.train.epochs, point.seed) for point in points]
    assert len(found) == len(set(found)) == 42
    assert {(kind, skip) for kind, skip, *_ in found} == {("sae", False), ("plt", False), ("plt", True), ("clt", False)}


def curves():
    """Frame of one layer with L0 4.5, 8 and 15 of kind sae, and of a plt at 5, 9 and 20 that is lower by (1 + seed) / 10, both linear in L0."""
    rows = [
        {"kind": kind, "seed": seed, "layer": 0, "l0": l0, "ce": 2 - l0 / 20 - (1 + seed) / 10 * (kind == "plt")}
        for kind, at in (("sae", (4.5, 8.0, 15.0)), ("plt", (5.0, 9.0, 20.0)))
        for seed in (0, 1, 2)
        for l0 in at
    ]
    return pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0)


def test_differences_are_paired_and_never_extrapolated():
    found = figures["differences"](curves(), "plt", "sae", 0, "ce")
    assert {seed: list(by) for seed, by in found.items()} == dict.fromkeys((0, 1, 2), [6, 8, 10, 12, 14])
    for seed, by in found.items():
        np.testing.assert_allclose(list(by.values()), -(1 + seed) / 10)


def test_a_kind_of_one_l0_is_compared_there():
    one = curves().filter((pl.col("kind") == "sae") | (pl.col("l0") == 9))
    found = figures["differences"](one, "plt", "sae", 0, "ce")
    assert {seed: list(by) for seed, by in found.items()} == dict.fromkeys((0, 1, 2), [9])
    assert found[1][9] == pytest.approx(-0.2)
    assert figures["differences"](one.filter(pl.col("l0") != 4.5, pl.col("l0") != 8), "plt", "sae", 0, "ce") == {}


def test_intervals_are_students():
    mean, low, high = figures["interval"]([1.0, 2.0, 6.0])
    half = 4.302652729911275 * np.std([1, 2, 6], ddof=1) / 3**0.5  # the 97.5 % quantile of 2 degrees of freedom
    assert (mean, low, high) == pytest.approx((3, 3 - half, 3 + half))


@pytest.mark.slow
def test_the_study_runs_small(tmp_path, monkeypatch, capsys):
    (tmp_path / "cltdb.yaml").write_text("workspace: artifacts\ndatabase: {path: cltdb.duckdb}\nmodel: {device: cpu}\n")
    shutil.copy(STUDY / "spec.yaml", tmp_path)
    small = {
        "activations.train_tokens": 6000,
        "activations.heldout_tokens": 1000,
        "train.n_features": 32,
        "harvest.tokens": 4000,
        "explain.features.sample": 8,
        "explain.baselines": "[shuffled]",
        "sweep": "[{seed: [0, 1], train.l0: [3, 9], train.kind: [sae, plt]}, {seed: [0, 1], train.l0: [9], train.kind: [plt], train.skip: [true]}]",
    }
    ran = cltdb(tmp_path, "run", "spec.yaml", *(word for key, value in small.items() for word in ("--set", f"{key}={value}")))
    assert ran.returncode == 0, ran.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures.py", "cltdb.duckdb", "artifacts", "--figures", "figures"])
    figures["main"]()
    printed = capsys.readouterr().out
    for heading in ("ce_replacement: plt less sae", "fvu: plt with skip less plt", "Detection", "Share of the skip path"):
        assert f"## {heading}" in printed
    assert "| 9.0 | 3 | " in printed and "nan" not in printed  # the skip path of the last layer, of both seeds
    assert len(list((tmp_path / "figures").glob("*.html"))) == 3
