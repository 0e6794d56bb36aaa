"""The harvest of a real model on real text: exact against dense activations, and the same bytes whatever the batches, processes and kills.

Model and text lie in ../shared, beside the repository; where they are absent these tests are skipped.
"""

import multiprocessing
import signal
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from benchmarks.harvest import random_dictionary
from command_line import ROOT
from slow_harvest import slow_bins, slow_contexts
from test_harvest import assert_same_files

from cltdb.activations.settings import TextSource
from cltdb.activations.tokens import Packing, pack
from cltdb.engine.stage import ALONE, Share
from cltdb.harvest.harvest import harvest
from cltdb.harvest.parts import FOLDER
from cltdb.harvest.settings import Harvest
from cltdb.model.loading import load_model

SHARED = ROOT.parent / "shared"
MODEL, TEXT = SHARED / "models/mixed-gpt2", SHARED / "data/wikitext2-valid.txt"
CONTEXT, SEED = 256, 5
pytestmark = pytest.mark.skipif(not (MODEL.is_dir() and TEXT.is_file()), reason="no model or text in ../shared")


def world(n_tokens, n_features, l0):
    """(model, a random dictionary with `l0` active features per layer, text)."""
    lm = load_model(str(MODEL), device="cpu")
    text, _ = pack(lm, [TextSource(files=[str(TEXT)])], Packing(CONTEXT, 0, 0, Path("/")), train_tokens=n_tokens)
    labelled = text.changed(labels=(text.documents % 4 - 1).astype(np.int16), label_names=["x", "y", "z"], by_label=True)
    return lm, random_dictionary(lm, text, n_features=n_features, l0=l0), labelled


@torch.no_grad()
def dense(lm, dictionary, text):
    """Per layer float32 [n_seqs, pos, n_features], zero where no ordinary token stands."""
    batches = [torch.from_numpy(text.tokens[first : first + 16]).long() for first in range(0, len(text), 16)]
    x = [lm.run(batch, with_logits=False).mlp_input for batch in batches]
    for layer in dictionary.layers:
        a = np.concatenate([dictionary.encode_layer(part[:, :, layer], layer).numpy() for part in x])
        a[~text.ordinary] = 0
        yield layer, a


@pytest.mark.parametrize(
    "n_tokens, n_features, l0, n_compared",
    [(3_000, 64, 6, 12), pytest.param(50_000, 3072, 24, 150, marks=pytest.mark.slow)],
)
def test_exact_on_natural_text(tmp_path, n_tokens, n_features, l0, n_compared):
    """Statistics of all features, text and activations of all windows; which windows, and the histograms, of `n_compared` features a layer."""
    settings, rng = Harvest(feature_edges=0), np.random.default_rng(0)
    lm, dictionary, text = world(n_tokens, n_features, l0)
    assert text.tokens.size >= n_tokens
    harvest(settings, lm, dictionary, text, directory=tmp_path, dict_id="d", seed=SEED)
    harvested = pl.read_parquet(tmp_path / "tables/harvested_text/*.parquet")
    assert all(
        text.tokens[sequence].tolist() == tokens for sequence, tokens in harvested.select("sequence", "tokens").iter_rows()
    )
    for layer, a in dense(lm, dictionary, text):
        features = pl.read_parquet(tmp_path / f"tables/features/layer-{layer:02d}.parquet")
        windows = pl.read_parquet(tmp_path / f"tables/windows/layer-{layer:02d}.parquet")
        n_firings = assert_statistics(features, a[text.ordinary])
        labels = pl.read_parquet(tmp_path / f"tables/feature_labels/layer-{layer:02d}.parquet")
        assert_labels(labels, features, a[text.ordinary], text)
        assert_windows(windows, a, text)
        got = {}
        for feature, band, *place in windows.select("feature", "band", "sequence", "position").iter_rows():
            got.setdefault(feature, {}).setdefault(band, []).append(tuple(place))
        quick = np.flatnonzero(n_firings < 2000)  # the greedy loop takes minutes for those that fire everywhere
        for feature in rng.permutation(quick)[:n_compared].tolist():
            wanted = slow_contexts(a[:, :, feature], text, settings, SEED, (layer, feature))
            assert got.get(feature, {}) == wanted, (layer, feature)
            fired = a[:, :, feature][a[:, :, feature] > 0]
            assert {bin["low"]: bin["n"] for bin in features["histogram"][feature]} == (slow_bins(fired) if len(fired) else {})


def assert_statistics(features, a):
    """Of all features of a layer against their activations at ordinary tokens [token, n_features]; returns how often each fired."""
    n_firings, wide = (a > 0).sum(0), a.astype(np.float64)
    mean = wide.sum(0) / np.maximum(n_firings, 1)
    std = np.sqrt(np.where(a > 0, (wide - mean) ** 2, 0).sum(0) / np.maximum(n_firings, 1))
    assert np.array_equal(features["density"], n_firings / len(a)) and np.array_equal(features["max_activation"], a.max(0))
    assert np.allclose(features["mean_activation"], mean, rtol=1e-7) and np.allclose(features["std_activation"], std, rtol=1e-5)
    return n_firings


def assert_labels(rows, features, a, text):
    """Of all features of a layer: counts by label and what they give; a as above."""
    label, token = text.labels[text.ordinary], text.tokens[text.ordinary]
    names = [f"{name} {value}" for value in range(3) for name in ("n", "mass", "rate", "matched")]
    found = {name: [] for name in names}
    for value in range(3):
        here = a[label == value].astype(np.float64)
        found[f"n {value}"], found[f"mass {value}"] = (here > 0).sum(0), here.sum(0)
        found[f"rate {value}"] = (here > 0).mean(0)
        kinds = [here[token[label == value] == kind] > 0 for kind in np.unique(token[label == value])]
        found[f"matched {value}"] = np.mean([of_kind.mean(0) for of_kind in kinds], axis=0)
    fires = np.flatnonzero(sum(found[f"n {value}"] for value in range(3)))
    assert rows.height == 3 * len(fires) > 0
    for value, name in enumerate("xyz"):
        of_label = rows.filter(pl.col("label") == name)
        assert of_label["feature"].to_list() == fires.tolist()
        assert of_label["tokens"].unique().to_list() == [int((label == value).sum())]
        assert np.array_equal(of_label["firings"], found[f"n {value}"][fires])
        for column, twin, least in (("mass", "mass", 0), ("rate", "rate", 0), ("matched_rate", "matched", 1e-9)):
            assert np.allclose(of_label[column], found[f"{twin} {value}"][fires], rtol=1e-6, atol=least)
    for column, twin in (("label_information_bits", "rate"), ("label_information_matched_bits", "matched")):
        rates = np.stack([found[f"{twin} {value}"] for value in range(3)], axis=1)
        joint = np.stack([rates, 1 - rates]) / 3  # of firing or not, and the label
        apart = joint.sum(2, keepdims=True) * np.full((1, 1, 3), 1 / 3)
        bits = np.where(joint > 0, joint * np.log2(np.where(joint > 0, joint, 1) / np.where(apart > 0, apart, 1)), 0).sum((0, 2))
        assert np.allclose(features[column], bits, rtol=0, atol=1e-7)


def assert_windows(windows, a, text):
    """Of all windows of a layer, tokens and activations are those of the text; a [n_seqs, pos, n_features]."""
    columns = "feature", "sequence", "start", "length", "position", "peak_token", "max_activation", "offsets", "activations"
    assert windows.height
    for feature, sequence, start, length, position, token, most, offsets, activations in windows.select(columns).iter_rows():
        inside = a[sequence, start : start + length, feature]
        assert offsets == np.flatnonzero(inside).tolist() and activations == inside[offsets].tolist()
        assert most == a[sequence, position, feature] and token == text.tokens[sequence, position]


def harvest_share(directory, batch_seqs, rank, world_size):
    """What a process of the tests below does. The text is cut by `batch_seqs`, so the world is the same everywhere."""
    torch.set_num_threads(1)
    settings = Harvest(feature_edges=6, coactivation_tokens=5_000, pool_windows=300, batch_seqs=batch_seqs)
    share = Share(rank, world_size) if world_size > 1 else ALONE
    harvest(settings, *world(17_000, 512, 12), directory=directory, dict_id="d", seed=SEED, share=share)


def begin(*arguments):
    process = multiprocessing.get_context("spawn").Process(target=harvest_share, args=arguments)
    process.start()
    return process


def finish(*arguments):
    process = begin(*arguments)
    process.join()
    assert process.exitcode == 0


def kill_once(process, there):
    """Kills a process (-9) as soon as there() is true."""
    while not there():
        assert process.is_alive(), "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_the_same_bytes_of_all_tables_whatever_the_batches_processes_and_kills(tmp_path):
    """Edges and their co-activation are among them."""
    whole = tmp_path / "whole"
    finish(whole, 16, 0, 1)
    edges = pl.read_parquet(whole / "tables/feature_edges/*.parquet")
    assert edges.height > 1000 and (edges["coactivation"] > 0).sum() > 1000
    for batch_seqs in (1, 64):
        finish(tmp_path / f"batches of {batch_seqs}", batch_seqs, 0, 1)
        assert_same_files(tmp_path / f"batches of {batch_seqs}", whole)
    for n in (2, 3):
        shared = tmp_path / f"{n} processes"
        processes = [begin(shared, 4, rank, n) for rank in range(n)]
        kill_once(processes[-1], lambda shared=shared: list((shared / FOLDER).glob("*.safetensors")))
        for process in processes[:-1]:
            process.join()
        finish(shared, 4, n - 1, n)
        finish(shared, 16, 0, 1)
        assert_same_files(shared, whole)
    for table in ("windows", "feature_edges"):
        killed = tmp_path / f"killed in {table}"
        kill_once(begin(killed, 2, 0, 1), (killed / "tables" / table).is_dir)
        finish(killed, 1, 0, 1)
        for left in killed.rglob(".*.tmp"):  # of the file that was being written: whoever finishes an artifact removes them
            left.unlink()
        assert_same_files(killed, whole)
