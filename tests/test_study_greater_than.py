"""The study experiments/greater-than: its figures are those of its results, its spec and its script run small."""

import importlib
import json
import sys
from xml.etree import ElementTree

import pytest
import torch
from command_line import ROOT, cltdb

FOLDER = ROOT / "experiments/greater-than"
FIGURES = ("curves.svg", "steps.svg", "features.svg")


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script of the study as it is when run."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("figures", "circuit"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in ("figures", "circuit"):
        sys.modules.pop(name, None)


def test_the_figures_are_those_of_the_results(script, tmp_path):
    results = json.loads((FOLDER / "results.json").read_text())
    script("figures").draw_all(results, tmp_path)
    for name in FIGURES:
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text(), name


def test_metric_shares_and_steps_against_what_they_say(script):
    circuit = script("circuit")
    prompts = circuit.Prompts(torch.zeros(2, 3, dtype=torch.long), torch.tensor([97, 10]))
    logits = torch.log(torch.full((2, 120), 0.1 / 110))
    logits[0, [5 + 98, 5 + 99, 5 + 97, 5]] = torch.log(torch.tensor([0.5, 0.2, 0.15, 0.05]))
    valid, difference = circuit.masses(logits, prompts, list(range(5, 105)))
    p = logits.double().softmax(-1)
    for row, start in enumerate((97, 10)):
        later = sum(float(p[row, 5 + year]) for year in range(start + 1, 100))
        others = sum(float(p[row, 5 + year]) for year in range(start + 1))
        assert float(valid[row]) == pytest.approx(later) and float(difference[row]) == pytest.approx(later - others)
    step = torch.tensor([-1.0] * 37 + [2.0] * 63, dtype=torch.float64)
    assert circuit.best_step(step) == (37, pytest.approx(1))
    assert circuit.best_step(torch.arange(100).double())[1] == pytest.approx(0.75, abs=1e-3)
    weights = circuit.weights_of_resamples(2)
    assert weights.sum(1).allclose(torch.ones(len(weights), dtype=torch.float64))
    value, low, high = circuit.interval(lambda w: w @ torch.tensor([0.0, 1.0], dtype=torch.float64), weights)
    assert (value, low, high) == (0.5, 0.0, 1.0)


@pytest.mark.slow
def test_the_study_runs_small(script, monkeypatch, tmp_path):
    """A minute: one seed, little text, few prompts; its shares are no result."""
    (tmp_path / "cltdb.yaml").write_text((ROOT / "cltdb.yaml").read_text())
    (tmp_path / "spec.yaml").write_text((FOLDER / "spec.yaml").read_text())
    small = ["sweep={seed: [0]}", "activations.train_tokens=20000", "activations.heldout_tokens=4000", "train.n_features=48"]
    done = cltdb(tmp_path, "run", "spec.yaml", *(word for one in small for word in ("--set", one)))
    assert done.returncode == 0, done.stderr
    circuit = script("circuit")
    for name, value in {
        "N_PROMPTS": 30,
        "N_FOR_RANKING": 6,
        "N_CANDIDATES": 8,
        "N_DRAWS": 3,
        "K": 4,
        "SIZES": (0, 1, 2, 4),
    }.items():
        monkeypatch.setattr(circuit, name, value)
    circuit.main(tmp_path / "cltdb.duckdb", tmp_path / "artifacts", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    (seed,) = results["seeds"].values()
    assert results["model"]["valid"][0] > 0.8
    assert len(seed["circuit"]) == 4 and len(seed["random"]["strength"]) == 3
    for curves in (seed["curves"], results["neurons"]["curves"]):
        for curve in curves.values():
            assert curve["0"]["share"] == curve["0"]["recovered"] == [0, 0, 0]
    for name in FIGURES:
        ElementTree.parse(tmp_path / name)
