"""The study experiments/orthogonality: its spec is read, its tables are right on made-up points, and the whole runs small."""

import json
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


def test_the_specs_have_the_recommended_coefficient_and_the_placebo_with_every_seed():
    for name, n_features in (("spec", 128), ("own-model", 256)):
        points = [loaded.experiment for loaded in load_points(STUDY / f"{name}.yaml")]
        found = {(one.train.kind, one.train.orthogonality.coefficient, one.train.weight_decay or 0, one.seed) for one in points}
        assert len(found) == len(points)
        for kind, recommended in figures["RECOMMENDED"].items():
            for arm in ((0, 0), (recommended, 0), (1, 0), (0, 0.01)):
                assert {(kind, *arm, seed) for seed in (0, 1, 2)} <= found
        assert all(one.train.n_features == n_features and one.match.across == "seed" for one in points)


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
    rows[3]["leakage"] = None  # of seed 0 of coefficient 1
    return pl.DataFrame(rows).sample(fraction=1, shuffle=True, seed=0)


def test_tables_are_paired_by_seed_and_the_placebo_changes_norms_as_much():
    frame = made_up()
    assert [label for label, _ in figures["arms"](frame, "clt")] == ["0", "1", "10", "100", "decay 0.1", "decay 1"]
    np.testing.assert_allclose(figures["differences"](frame, "clt", "fvu", coefficient=10.0), [0.04] * 3)
    relative = figures["differences"](frame, "clt", "fvu", relative=True, coefficient=10.0)
    np.testing.assert_allclose(relative, [0.04 / 1, 0.04 / 1.01, 0.04 / 1.02])
    np.testing.assert_allclose(figures["differences"](frame, "clt", "norm", decay=1.0), [-1.1] * 3)
    assert len(figures["differences"](frame, "clt", "leakage", coefficient=1.0)) == 2
    assert figures["within"](frame, "clt") == 10
    worse = frame.with_columns(ce_gap=pl.when(pl.col("coefficient") == 10).then(0.5).otherwise("ce_gap"))
    assert figures["within"](worse, "plt") == 1
    assert figures["placebo"](frame, "clt", 10.0) == 1 and figures["placebo"](frame, "clt", 1.0) == 0.1
    shown = figures["panel"](frame, "clt", ["fvu", "leakage"])
    assert "| 10 | 1.0500 (1.0252 to 1.0748) | " in shown and shown.count("\n") == 7 and "nan" not in shown
    assert "| 100 | +0.2000 (+0.2000 to +0.2000) |" in figures["changes"](frame, "clt", ["fvu"])


def test_claims_are_judged_by_the_whole_interval():
    verdict = figures["verdict"]
    assert [verdict("matched", 1, *ends) for ends in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1))] == [
        "holds",
        "not shown",
        "does not hold",
    ]
    assert [verdict("leakage", -1, *ends) for ends in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1))] == [
        "does not hold",
        "not shown",
        "holds",
    ]
    assert [verdict("fvu", None, *ends) for ends in ((-0.1, 0.04), (0.04, 0.06), (0.06, 0.07))] == [
        "holds",
        "not shown",
        "does not hold",
    ]
    assert verdict("ce_gap", None, 0.001, 0.009) == "holds" and verdict("ce_gap", None, 0.02, 0.05) == "does not hold"
    frame = made_up().with_columns(coefficient=pl.col("coefficient") / 10)  # 0.1, the recommended one, is what was 1
    shown = {row.split(" | ")[0].removeprefix("| "): row for row in figures["claims"](frame, "plt").splitlines()}
    assert (
        "| 1.0100 | 1.0300 | +2.0 (+1.9 to +2.0) | holds | +0.0 (+0.0 to +0.0) |" in shown["FVU stays within 5 % (change in %)"]
    )
    assert shown["claim"].endswith("| weight decay 0.1 instead |") and "| not shown |" in shown["leakage falls"]


def test_shares_matched_are_of_all_pairs_and_their_interval_is_the_jackknifes(tmp_path):
    found = pl.DataFrame(
        {"dict_id": list("cbadef"), "kind": "plt", "seed": [2, 1, 0, 0, 1, 2], "coefficient": [0.0] * 3 + [1] * 3, "decay": 0.0}
    )
    assert sorted(figures["pairs"](found)) == [("a", "b"), ("a", "c"), ("b", "c"), ("d", "e"), ("d", "f"), ("e", "f")]
    above = {0.9: [0.2, 0.3, 0.7, 0.1], 0.7: [0.4, 0.6, 0.8, 0.2]}
    names = [("a", "b"), ("a", "c"), ("b", "c"), ("d", "e")]
    rows = [
        (*pair, level, share, share / 10) for level, shares in above.items() for pair, share in zip(names, shares, strict=True)
    ]
    table = pl.DataFrame(rows, schema=["dict_a", "dict_b", "above", "share_a", "control_share"], orient="row")
    table = pl.concat(
        [
            table.with_columns(matched_by=pl.lit("decoder")),
            table.with_columns(pl.col("share_a") / 2, matched_by=pl.lit("activations")),
        ]
    )
    context = pl.SQLContext(dictionary_matches=table.with_columns(layer=pl.lit(None, pl.Int32)))
    shares = figures["compared"](SimpleNamespace(sql=lambda text: context.execute(text, eager=True)))
    matched = figures["matches"](found, shares).sort("dict_id")
    assert matched["matched"].to_list() == [0.7, 0.3, 0.2, None, None, 0.1]  # each of the pair without it
    assert matched["matched_loosely"].to_list()[:3] == [0.8, 0.6, 0.4] and matched["by_chance"][0] == pytest.approx(0.08)
    own = [0.7, 0.3, 0.2]
    error = np.sqrt(
        2 / 3 * sum((one - np.mean(own)) ** 2 for one in own)
    )  # the jackknife's, (n - 1) / n times the sum of squares
    mean, low, high = figures["ends"]("matched", own)
    np.testing.assert_allclose([mean, high - mean, mean - low], [0.4, 4.302653 * error, 4.302653 * error], rtol=1e-6)


def test_two_dictionaries_of_one_seed_and_arm_are_refused():
    swept = json.dumps({"train.kind": "plt", "seed": 0, "train.orthogonality.coefficient": 0.1})
    db = SimpleNamespace(query=lambda name, sweep: pl.DataFrame({"dict_id": list(dict_ids), "swept": swept}))
    dict_ids = "a"
    assert figures["points"](db, "orthogonality").rows() == [("a", "plt", 0, 0.1, 0.0)]
    dict_ids = "ab"
    with pytest.raises(SystemExit, match="more than one dictionary of one kind, seed and arm"):
        figures["points"](db, "orthogonality")


def test_the_figure_has_a_plot_per_measure_and_a_bar_per_arm_and_kind(tmp_path):
    figures["draw"](made_up(), tmp_path / "panel.svg")
    drawn = (tmp_path / "panel.svg").read_text()
    assert drawn.count('stroke-width="1.5"') == len(figures["DRAWN"]) * 2 * 6 and drawn.count("decay 0.1") == len(
        figures["DRAWN"]
    )
    figures["draw"](made_up().filter(kind="plt"), tmp_path / "one.svg")
    assert (tmp_path / "one.svg").read_text().count('stroke-width="1.5"') == len(figures["DRAWN"]) * 6


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
        "sweep": "[{seed: [0, 1, 2], train.kind: [plt], train.orthogonality.coefficient: [0, 0.1]},"
        " {seed: [0, 1, 2], train.kind: [plt], train.weight_decay: [1]}]",
    }
    ran = cltdb(tmp_path, "run", "spec.yaml", *(word for key, value in small.items() for word in ("--set", f"{key}={value}")))
    assert ran.returncode == 0, ran.stderr
    monkeypatch.chdir(tmp_path)
    asked = ["figures.py", "cltdb.duckdb", "--folder", "."]
    monkeypatch.setattr(sys, "argv", [*asked, "--pairs"])
    figures["main"]()
    [of_arm, *_] = left = capsys.readouterr().out.splitlines()
    assert len(left) == 3 and cltdb(tmp_path, "match", *of_arm.split()).returncode == 0  # seeds 1 and 2 of each arm
    monkeypatch.setattr(sys, "argv", asked)
    figures["main"]()
    printed = capsys.readouterr().out
    assert "## plt" in printed and "| decay 1 | " in printed and "matched above 0.9 across seeds rise" in printed
    assert len(json.loads((tmp_path / "orthogonality.json").read_text())) == 9 and (tmp_path / "orthogonality.svg").is_file()
