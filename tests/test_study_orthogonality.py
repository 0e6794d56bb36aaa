"""The study experiments/orthogonality: its spec is read, its tables are right on made-up points, and the whole runs small."""

import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from command_line import cltdb

from cltdb.spec import load_points

STUDY = Path(__file__).parent.parent / "experiments/orthogonality"
figures = runpy.run_path(str(STUDY / "figures.py"))


def test_the_spec_has_every_coefficient_and_the_placebo_with_every_seed():
    points = [loaded.experiment for loaded in load_points(STUDY / "spec.yaml")]
    found = [(one.train.kind, one.train.orthogonality.coefficient, one.train.weight_decay, one.seed) for one in points]
    assert len(found) == len(set(found)) == 48
    assert {(coefficient, decay) for _, coefficient, decay, _ in found} == {
        *((one, 0) for one in (0, 0.1, 1, 10, 100)),
        *((0, one) for one in (0.01, 0.1, 1)),
    }
    assert all(one.evaluate.isolation.facts.toyworld and one.match.across == "seed" for one in points)


def made_up():
    """FVU rises by 1 % per decade and 20 % at 100, the norm rises with the coefficient and falls with the decay; seed s adds s / 100 to all."""
    rows = []
    for kind in ("clt", "plt"):
        for coefficient, decay, fvu, norm in (
            (0.0, 0.0, 1.0, 2.0), (1.0, 0.0, 1.02, 2.4), (10.0, 0.0, 1.04, 3.0), (100.0, 0.0, 1.2, 3.5), (0.0, 0.1, 1.0, 1.6), (0.0, 1.0, 1.1, 0.9),
        ):  # fmt: skip
            for seed in (0, 1, 2):
                own = dict.fromkeys(figures["MEASURES"], seed / 100) | {"fvu": fvu + seed / 100, "norm": norm + seed / 100}
                rows.append({"kind": kind, "seed": seed, "coefficient": coefficient, "decay": decay} | own)
    rows[0]["matched"] = None
    return pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0)


def test_tables_are_paired_by_seed_and_the_placebo_changes_norms_as_much():
    frame = made_up()
    assert [label for label, _ in figures["arms"](frame)] == ["0", "1", "10", "100", "decay 0.1", "decay 1"]
    np.testing.assert_allclose(figures["differences"](frame, "clt", "fvu", coefficient=10.0), [0.04] * 3)
    np.testing.assert_allclose(figures["differences"](frame, "clt", "norm", decay=1.0), [-1.1] * 3)
    assert len(figures["differences"](frame, "clt", "matched", coefficient=1.0)) == 2
    assert figures["recommended"](frame, "clt") == 10
    worse = frame.with_columns(ce_gap=pl.when(pl.col("coefficient") == 10).then(0.5).otherwise("ce_gap"))
    assert figures["recommended"](worse, "plt") == 1
    assert figures["placebo"](frame, "clt", 10.0) == 1 and figures["placebo"](frame, "clt", 1.0) == 0.1
    shown = figures["panel"](frame, "clt")
    assert "| 10 | 1.0500 (1.0252 to 1.0748) |" in shown and shown.count("\n") == 7 and "nan" not in shown
    assert "| 100 | +0.2000 (+0.2000 to +0.2000) |" in figures["changes"](frame, "clt")
    assert "| 0.010, 0.020 |" in shown and "| 0.000, 0.010, 0.020 |" in figures["panel"](
        frame, "plt"
    )  # one by one, of two seeds where one is null
    crosses = [one for one in figures["figure"](frame).data if one.mode == "markers" and one.name.startswith("clt")][0]
    assert crosses.x == ("1", "10", "100") and crosses.y == pytest.approx([1.01, 1.11, 1.11])  # FVU at decays 0.1, 1, 1


def test_matches_are_those_of_the_study_with_its_first_seed():
    found = pl.DataFrame(
        {"dict_id": list("abcd"), "kind": "clt", "seed": [0, 1, 2, 0], "coefficient": [1.0, 1, 1, 0], "decay": 0.0}
    )
    pairs = [("a", "b", 0.5), ("a", "c", 0.6), ("c", "b", 0.7), ("d", "b", 0.8), ("x", "b", 0.9)]
    shares = pl.DataFrame(pairs, schema=["dict_a", "dict_id", "matched"], orient="row")
    matched = figures["matches"](SimpleNamespace(sql=lambda text: shares), found)
    assert matched.sort("dict_id").rows() == [("b", 0.5), ("c", 0.6)]


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
        "evaluate.isolation": "{features: 2, prompts: 4, facts: {toyworld: true, pairs: 1}}",
        "sweep": "[{seed: [0, 1], train.kind: [plt], train.orthogonality.coefficient: [0, 10]}, {seed: [0, 1], train.kind: [plt], train.weight_decay: [1]}]",
    }
    ran = cltdb(tmp_path, "run", "spec.yaml", *(word for key, value in small.items() for word in ("--set", f"{key}={value}")))
    assert ran.returncode == 0, ran.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures.py", "cltdb.duckdb", "--figures", "figures"])
    figures["main"]()
    printed = capsys.readouterr().out
    assert "## plt" in printed and "| decay 1 | " in printed and "Recommended coefficient: " in printed
    assert len(list((tmp_path / "figures").glob("*.html"))) == 1
