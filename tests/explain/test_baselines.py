"""Baseline dictionaries: their values, their sparsity, their harvest, and which of their units stand beside which features."""

import json
import shutil
import zlib
from itertools import permutations

import numpy as np
import polars as pl
import pytest
import torch
from worlds import models, projects
from worlds.planted import FEATURES, VOCABULARY, explain_planted
from worlds.shared import made_once

from cltdb.__main__ import main
from cltdb.activations.tokens import Sequences
from cltdb.engine.run import run
from cltdb.engine.units import Units
from cltdb.explain.baselines import BASELINE_DICTIONARIES, harvested, neurons, sparse_neurons, untrained
from cltdb.explain.baselines.harvested import Baseline
from cltdb.explain.baselines.matched import matched
from cltdb.explain.baselines.sample import SampledText, cuts, n_above
from cltdb.explain.baselines.wanted import Wanted
from cltdb.explain.estimate import planned
from cltdb.explain.explainers import rules
from cltdb.explain.settings import Explain
from cltdb.explain.subjects import Subjects
from cltdb.model.language_model import LanguageModel
from cltdb.model.loading import load_model
from cltdb.spec import load
from cltdb.stages import STAGES

WANTED = Wanted(n_features=20, l0={0: 2.0, 1: 0.7}, n_units=20)


def sampled(lm, n_seqs=30, context=24):
    tokens = np.random.default_rng(0).integers(1, 257, (n_seqs, context)).astype(np.int32)
    nothing = np.zeros((n_seqs, context))
    return SampledText(lm, Sequences(tokens, nothing.astype(np.int64), nothing.astype(np.int16) - 1, [], (0, 77)), batch_seqs=4)


@pytest.fixture(scope="module")
def world():
    lm = models.language_model()
    return lm, sampled(lm)


def inputs(text):
    """The MLP inputs of all ordinary tokens of the sample, at once."""
    return torch.cat([x for x, _ in text.batches()])


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_values_of_neurons_are_those_that_enter_the_down_projection(architecture):
    lm, seen = models.language_model(architecture), []
    last = {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h"}.get(architecture, "down_proj")
    for block in lm.blocks:
        block.mlp.get_submodule(last).register_forward_hook(lambda module, args, y: seen.append((args[0], y)))
    tokens = torch.randint(1, 257, (3, 16), generator=torch.Generator().manual_seed(0))
    x = lm.run(tokens).mlp_input
    for layer, (block, (value, written)) in enumerate(zip(lm.blocks, list(seen), strict=True)):
        torch.testing.assert_close(neurons.values(lm, x[:, :, layer], layer), value, atol=1e-6, rtol=0)
        parts = lm.family.neurons(block.mlp)
        bias = getattr(parts.output, "bias", None)
        torch.testing.assert_close(value @ parts.W_out + (0 if bias is None else bias), written, atol=1e-5, rtol=0)
        assert parts.W_in.shape == parts.W_out.shape == (value.shape[-1], lm.d_model)


def test_neurons_behind_a_norm_that_the_dictionary_reads_before():
    hf, tokens = models.hf_model(), torch.arange(1, 17)[None]
    normed, before = (LanguageModel(hf, models.byte_tokenizer(), model_id="m", mlp_input=side) for side in ("normed", "residual"))
    values = [neurons.values(lm, lm.run(tokens).mlp_input[:, :, 1], 1) for lm in (normed, before)]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["untrained", "sparse_neurons"])
def test_thresholds_give_the_wanted_number_of_active_features(kind, dtype):
    lm = models.language_model(dtype=dtype)
    text = sampled(lm)
    made = BASELINE_DICTIONARIES[kind].make(lm, WANTED._replace(n_units=64), text, seed=1)
    x = inputs(text)
    for layer, l0 in WANTED.l0.items():
        a = made.dictionary.encode_layer(x[:, layer].to(made.dictionary.dtype), layer)
        off = 1.5 if dtype == torch.float32 else 0.05 * l0 * len(x)  # values in bfloat16 are often equal
        assert (a > 0).sum().item() == pytest.approx(l0 * len(x), abs=off)


def test_an_untrained_dictionary_of_few_features_has_their_share_of_the_active_ones(world):
    lm, text = world
    dense = Wanted(
        n_features=12, l0={0: 6.0, 1: 0.3}, n_units=4
    )  # 6 of 12: pre-activations of less than zero are among those that fire
    dictionary = untrained.make(lm, dense, text, seed=1).dictionary
    x = inputs(text)
    for layer, l0 in dense.l0.items():
        a = dictionary.encode_layer(x[:, layer], layer)
        assert a.shape[1] == 4 and (a > 0).sum().item() == pytest.approx(l0 / 3 * len(x), abs=1.5)


def test_cuts_equal_those_of_all_values_at_once(world):
    lm, text = world
    x = inputs(text)
    found = cuts(text, lambda h, layer: h, WANTED.l0)
    above = n_above(text, lambda h, layer: h, found)
    for layer, l0 in WANTED.l0.items():
        ordered = x[:, layer].flatten().sort(descending=True).values
        assert found[layer] == ordered[round(l0 * len(x))]
        assert above[layer].tolist() == (x[:, layer] > found[layer]).sum(0).tolist()


def test_an_untrained_dictionary_is_the_same_for_a_seed(world):
    first, again, other = (untrained.make(*world[:1], WANTED, world[1], seed=seed).dictionary for seed in (1, 1, 2))
    for name in ("W_enc", "b_enc", "threshold"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
        assert not torch.equal(getattr(first, name), getattr(other, name)), name
    assert untrained.identity(WANTED, 1) != untrained.identity(WANTED, 2) != untrained.identity(WANTED._replace(l0={0: 2.0}), 2)
    assert sparse_neurons.identity(WANTED, 1) == sparse_neurons.identity(WANTED, 2) != neurons.identity(WANTED, 2)


@pytest.mark.parametrize("kind", [neurons, sparse_neurons])
def test_some_neurons_of_every_density_stand_for_a_layer(world, kind):
    counts = np.array([0, 7, 1, 9, 0, 3, 5, 0])
    assert neurons.of_every_density(counts, 3).tolist() == [1, 3, 5]  # of 9 7 5 3 1 the first, second and fourth
    assert neurons.of_every_density(counts, 6).tolist() == [0, 1, 2, 3, 5, 6]
    lm, text = world
    made = kind.make(lm, WANTED._replace(n_units=5), text, seed=0)
    x = inputs(text)[:, 1]
    all_values = neurons.values(lm, x, 1)
    threshold, own = made.dictionary.threshold[1, 0], all_values[:, made.units[1]]
    torch.testing.assert_close(made.dictionary.encode_layer(x, 1), own * (own > threshold))
    n_wanted = WANTED.l0[1] * len(x) if kind is sparse_neurons else (all_values > 0).sum().item()
    assert (all_values > threshold).sum().item() == pytest.approx(n_wanted, abs=1.5)


def test_what_is_wanted_is_read_from_the_harvest():
    features = pl.DataFrame({"layer": [1, 0, 0, 1], "density": [0.5, 0.123, 0.001, 0.27]})
    assert Wanted.of(features, 9) == Wanted(n_features=2, l0={0: 0.12, 1: 0.77}, n_units=9)


# Which unit stands beside which feature.


def frame(**densities):
    rows = [(int(layer[1:]), number, density) for layer, column in densities.items() for number, density in enumerate(column)]
    return pl.DataFrame(rows, schema=["layer", "feature", "density"], orient="row")


def test_each_feature_stands_beside_a_unit_of_its_layer_and_density():
    dice = np.random.default_rng(0)
    features = frame(l0=dice.random(4), l1=[0.5], l2=[0.1])
    units = frame(l0=dice.random(6), l1=[0.9, 0.01, 0.4])
    pairs = matched(features, units, 100, seed=0)
    assert pairs.filter(layer=1).rows() == [(1, 0, 2)] and not len(pairs.filter(layer=2))
    mine, theirs = (np.log(part.filter(layer=0)["density"].to_numpy()) for part in (features, units))
    chosen = dict(pairs.filter(layer=0).select("feature", "unit").iter_rows())
    cost = lambda units: sum(abs(mine[feature] - theirs[unit]) for feature, unit in enumerate(units))  # noqa: E731
    assert cost([chosen[feature] for feature in range(4)]) == min(map(cost, permutations(range(6), 4)))
    assert len(matched(features, units, 2, seed=0)) == 2
    assert not len(matched(features.clear(), units, 5, seed=0)) and not len(matched(features, units.clear(), 5, seed=0))


def planted_again(harvested):
    """The planted features as a baseline dictionary of their own, whose units have other numbers."""
    subjects = Subjects(harvested, vocabulary=VOCABULARY, seed=3, base="again")
    return Baseline("baseline:untrained", subjects, [[100 + feature for feature in range(len(FEATURES))]])


def test_a_dictionary_beside_itself_has_the_same_explanations_and_scores(harvested, tmp_path):
    """Each planted feature has a density of its own."""
    explanations, scores = explain_planted(harvested, tmp_path, seed=3, compared=[planted_again(harvested)])
    for table, names in (
        (explanations, ["feature", "text", "rule"]),
        (scores, ["feature", "scorer", "score", "n", "ci_low", "ci_high"]),
    ):
        own, beside = (
            table.filter(pl.col("explainer") == name, *([pl.col("text").is_not_null()] if "text" in names else [])).sort(
                names[:2]
            )
            for name in ("rules", "baseline:untrained")
        )
        assert len(own) >= 4 and own.select(names).equals(beside.select(names))
    units = [json.loads(detail)["unit"] for detail in scores.filter(explainer="baseline:untrained")["detail"]]
    assert units == [100 + feature for feature in scores.filter(explainer="baseline:untrained")["feature"]]


def test_an_estimate_counts_what_baselines_are_asked(harvested, tmp_path):
    subjects, units = planted_again(harvested).subjects, Units(tmp_path, tmp_path / "explain/a")
    asked = []
    for baselines in ([], ["untrained", "neurons"]):
        section = Explain(model="openai/m", scorers=["detection"], baselines=baselines, baseline_features=2)
        asked.append(planned(section, subjects, units=units).new.requests)
    assert asked[1] - asked[0] == pytest.approx(2 * 2 * asked[0] / len(FEATURES), abs=1)


# The whole path.

SPARSE = "untrained", "sparse_neurons"  # of a random model half of the neurons are above zero: no window is without
SPEC = "explain: {scorers: [detection], baselines: [shuffled, untrained, neurons, sparse_neurons], baseline_features: 24}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a dictionary, explained with all baselines: (its folder, the spec, the artifact of explain)."""
    made = made_once(tmp_path_factory, "published [1]", projects.with_published)
    folder = tmp_path_factory.mktemp("baselines") / "project"
    shutil.copytree(made, folder)
    shutil.rmtree(folder / "artifacts/explain")
    spec = (folder / "published.yaml").read_text() + SPEC
    return folder, spec, explained(folder, spec)


def explained(folder, spec):
    """The artifact of explain of a spec."""
    before = set(artifacts(folder))
    (folder / "published.yaml").write_text(spec)
    run(load(folder / "published.yaml"), until="explain")
    return (set(artifacts(folder)) - before).pop()


def artifacts(folder, stage="explain"):
    return (folder / "artifacts" / stage).glob("????????????????")


def rows(artifact, table):
    return pl.read_parquet(sorted((artifact / "tables" / table).glob("*.parquet")))


def harvests(folder):
    """{kind: (folder of its harvest, its record)}."""
    found = {}
    for path in (folder / "artifacts/units/harvests").glob("*"):
        kind = pl.read_parquet(path / "tables/features/*.parquet")["dict_id"][0]
        found[kind] = path, json.loads((path / "unit.json").read_text())["features"]
    return found


@pytest.mark.parametrize("kind", SPARSE)
def test_rows_beside_features_are_those_of_the_baselines_own_features(project, kind):
    folder, _, artifact = project
    scores, name = rows(artifact, "scores"), f"baseline:{kind}"
    beside = scores.filter(explainer=name)
    assert 2 <= len(beside) <= 24 and beside.select("layer", "feature").is_unique().all()
    assert not len(beside.join(rows(artifact, "explanations").filter(explainer="rules"), on=["layer", "feature"], how="anti"))
    harvest, features = harvests(folder)[name]
    lm = load_model(folder / "model")
    subjects = Subjects(harvest, vocabulary=lm.token_strings(), seed=zlib.crc32(b"0/explain"), base="")
    explanations = rows(artifact, "explanations").filter(explainer=name).select("layer", "feature", "text").rows()
    texts = {(layer, feature): text for layer, feature, text in explanations}
    for layer, feature, detail in beside.select("layer", "feature", "detail").iter_rows():
        unit = json.loads(detail)["unit"]
        subject = subjects.subject(layer, features[layer].index(unit))
        assert rules.explain([subject])[0].text == texts[layer, feature]
        assert len(subject.examples.test_positives.documents) == json.loads(detail)["n_pos"]


def test_negatives_are_drawn_from_the_same_windows(project):
    folder, *_ = project
    pools = [
        pl.read_parquet(path / "pool.parquet")
        for path in [*artifacts(folder, "harvest"), *(path for path, _ in harvests(folder).values())]
    ]
    assert len(pools) == 4 and all(pool.equals(pools[0]) for pool in pools)


def test_a_baseline_is_harvested_once_for_all_artifacts(project, monkeypatch):
    folder, spec, first = project
    monkeypatch.setattr(harvested, "_harvested", None)
    second = explained(folder, spec.replace("[detection]", "[fuzzing]"))
    listed = [(artifact / "units-0.txt").read_text().split() for artifact in (first, second)]
    assert sorted(listed[0]) == sorted(listed[1]) and len(listed[0]) == 3
    assert not [*first.glob("text.json"), *second.glob("text.json")]
    assert {f"baseline:{kind}" for kind in SPARSE} < set(rows(second, "scores")["explainer"])


def test_edges_through_heads_are_no_part_of_a_baseline(project, tmp_path, monkeypatch):
    shutil.copytree(project[0], tmp_path / "project")
    monkeypatch.setattr(harvested, "_harvested", None)
    explained(tmp_path / "project", project[1].replace("window: 8,", "window: 8, head_edges: 1,"))
    assert len([*(tmp_path / "project/artifacts/harvest").glob("????????????????")]) == 2


def test_harvests_that_no_artifact_uses_are_garbage(project, tmp_path, monkeypatch, capsys):
    shutil.copytree(project[0], tmp_path / "project")
    shutil.rmtree(tmp_path / "project/artifacts/explain")
    monkeypatch.chdir(tmp_path / "project")
    assert main(["gc", "--yes"]) == 0 and ", 3 harvests" in capsys.readouterr().out
    assert not [*(tmp_path / "project/artifacts/units/harvests").glob("*")]


def test_the_closing_line_has_the_baselines_beside_the_score(project):
    _, _, artifact = project
    line = next(line for line in STAGES["explain"].lines({"explain": artifact}) if "detection of rules" in line)
    assert all(f"{name} 0." in line for name in ("shuffled", *SPARSE))
