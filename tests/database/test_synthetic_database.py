"""The synthetic database and its benchmarks at a tiny size: its numbers agree with each other, and the scripts run."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from benchmarks import database, database_concurrency, database_operations, synthetic_database
from benchmarks.database_concurrency import READERS

import cltdb
from cltdb.__main__ import main
from cltdb.explain.explain import BLOCK, PART_BLOCKS

SIZES = synthetic_database.Sizes.of(400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic_database.load(folder, synthetic_database.make(folder, SIZES))
    return folder


@pytest.fixture(scope="module")
def db(folder):
    return cltdb.open(folder / "cltdb.duckdb")


@pytest.mark.slow  # a smaller one is sound in test_check.py
def test_it_is_sound(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["db", "check", "--full"]) == 0 and capsys.readouterr().out == "no problems\n"


def test_windows_are_slices_of_the_text_with_their_peaks(db):
    text = {row["sequence"]: row["tokens"] for row in db.sql("FROM harvested_text").to_dicts()}
    maxima = {}
    for window in db.sql("FROM windows ORDER BY ALL").to_dicts():
        tokens = text[window["sequence"]][window["start"] : window["start"] + window["length"]]
        fires = dict(zip(window["offsets"], window["activations"], strict=True))
        assert len(tokens) == window["length"] and sorted(fires) == window["offsets"] and max(fires) < window["length"]
        assert tokens[window["position"] - window["start"]] == window["peak_token"]
        assert (
            fires[window["position"] - window["start"]] == window["max_activation"] == max(fires.values())
            and min(fires.values()) > 0
        )
        maxima.setdefault((window["layer"], window["feature"]), []).append(window)
    for feature in db.sql("FROM features").to_dicts():
        found = maxima.get((feature["layer"], feature["feature"]), [])
        assert max((window["max_activation"] for window in found), default=0) == feature["max_activation"]
        assert len({(window["sequence"], window["position"]) for window in found}) == len(found) == feature["n_contexts"]
        assert len({window["document"] for window in found}) == feature["n_documents"]
        assert bool(found) != feature["dead"]


def test_tokens_stand_before_the_peaks_of_most_features(db):
    """What a generator of random text lacked: loading and searches looked cheaper than those of real features."""
    n_live = db.sql("FROM features WHERE NOT dead").height
    of_role = {role: rows for (role,), rows in db.sql("FROM token_features").group_by("role")}
    assert 2.5 < of_role["follows"].height / n_live < 4.5 and 2.5 < of_role["fires_on"].height / n_live < 5
    assert of_role["follows"].n_unique(["layer", "feature"]) > 0.75 * n_live


def test_statistics_of_a_feature_agree(db):
    live = db.sql("FROM features WHERE NOT dead")
    text = json.loads(next(db.path.parent.glob("artifacts/harvest/*/counts.json")).read_text())
    firings = live["histogram"].list.eval(pl.element().struct["n"]).list.sum()
    np.testing.assert_allclose(firings, live["density"] * text["ordinary"], rtol=1e-9)
    quantiles = np.array(live["quantiles"].to_list())
    assert (np.diff(quantiles, axis=1) >= 0).all() and (quantiles[:, -1] <= live["max_activation"].to_numpy()).all()
    low = np.array([histogram[-1]["low"] for histogram in live["histogram"]])
    assert (low <= live["max_activation"].to_numpy()).all() and (live["max_activation"].to_numpy() < 1.26 * low).all()
    assert (live["mean_activation"] <= live["max_activation"]).all() and (live["mean_activation"] >= live["threshold"]).all()


def test_the_same_arguments_make_the_same_files(folder, tmp_path):
    synthetic_database.make(tmp_path, SIZES)
    for manifest in folder.glob("artifacts/*/*/manifest.json"):
        if "database" not in manifest.parts:
            other = json.loads((tmp_path / manifest.relative_to(folder)).read_text())
            assert other["files"] == json.loads(manifest.read_text())["files"]


def test_explanations_are_parts_as_the_stage_writes_them(folder):
    assert synthetic_database.PART_FEATURES == BLOCK * PART_BLOCKS
    parts = sorted(folder.glob("artifacts/explain/*/tables/explanations/*.parquet"))
    assert [pl.read_parquet(part).n_unique(["layer", "feature"]) for part in parts] == [round(SIZES.explained_share * 400)]


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_operations_of_the_benchmark_work(folder, tmp_path, monkeypatch, every):
    """All are made ready by name; of those so many are run. What they ask is asked by tests of its own."""
    place, names = database_operations.place(folder), set()
    monkeypatch.setattr(database_operations.time, "sleep", lambda _: None)
    monkeypatch.chdir(folder)
    in_processes = {name: arguments for name, _, arguments in database_operations.command_lines(place)}
    for number, (name, _, prepare) in enumerate(database_operations.operations(place)):
        names.add(name)
        if number % every or name.startswith("cltdb db check"):
            continue  # `test_it_is_sound` checks
        if name in in_processes:  # tried in this one, which is ten times faster
            words = [str(tmp_path / "exported") if word == database_operations.ASIDE else word for word in in_processes[name]]
            assert main(words) == 0, name
            continue
        try:
            prepare(place)()
        except Exception as error:
            raise AssertionError(name) from error
    asked = {"query feature_card", "page feature: its data", "page features: a word", "sql evaluation", "cltdb db check"}
    assert asked <= names and all(any(name.startswith(known) for name in names) for one in READERS.values() for known in one)


@pytest.mark.slow
def test_the_benchmark_prints_a_row_per_operation(folder):
    script = [sys.executable, database.__file__, str(folder), "--features", "400"]  # in a process of its own, which forks
    asked = ["--repetitions", "1", "--only", "query graph_list", "sql evaluation"]
    done = subprocess.run([*script, *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| query graph_list") == 2 and "\n| sql evaluation | 1 |" in done.stdout
    assert "0 of 3 miss a goal" in done.stdout


@pytest.mark.slow
def test_readers_and_a_writer_note_what_they_did(folder, tmp_path, monkeypatch, capsys):
    log = tmp_path / "log.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(database_concurrency, "time", SimpleNamespace(time=iter((0, 2)).__next__))  # the time comes after one
        database_concurrency.write(folder, log, 1, n_features=80)
    for kind in ("page", "api", "search", "cli"):
        database_concurrency.read(folder, log, 0, kind)
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    assert database_concurrency.report(notes, [], "no problems") == 0
    printed = capsys.readouterr().out
    assert (
        all(f"| **{kind}** | 1 | 0 |" in printed for kind in ("page", "api", "search", "cli"))
        and "1 experiments loaded" in printed
    )
