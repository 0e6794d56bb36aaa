"""Explaining and scoring planted features by rules, and what of that is kept."""

import hashlib
import json
import re
import socket

import numpy as np
import polars as pl
import pytest
import stored_units
from worlds.planted import FEATURES, explain_planted, write_harvest

from cltdb.engine.units import Units
from cltdb.errors import CltdbError
from cltdb.explain.baselines import BASELINE_DICTIONARIES
from cltdb.explain.examples import COACTIVATING, SAME_TOKENS, SIMILAR_DECODER, HarvestedWindows, in_test_half
from cltdb.explain.explainers import EXPLAINERS, asks, rules
from cltdb.explain.pipeline import Pipeline
from cltdb.explain.prompts import prompt, versions
from cltdb.explain.scorers import SCORERS
from cltdb.explain.settings import ASKING, RULES_MODEL, BaselineName, Explain, ExplainerName, Features, ScorerName
from cltdb.explain.stage import STAGE
from cltdb.explain.strata import stratified
from cltdb.explain.summary import summarise

NAMES = list(FEATURES)
PROMPTS = {
    "detection": (2, "3272ea86f46f691f"),
    "fuzzing": (2, "b5b0c6517fc874c5"),
    "intruder": (1, "dc3db8b7bfb26c5f"),
    "llm": (2, "0a035465a644c2f7"),
    "llm_contrastive": (1, "d18c1e86470d9cf2"),
    "llm_graph": (1, "91492b11db34159c"),
    "llm_output": (1, "346bf2fbbef751ad"),
    "pick_one": (1, "8e89ecb610c1e316"),
    "pick_tokens": (1, "0a7ac4c7c806fd4a"),
    "simulation": (1, "541550dfdd9fe37f"),
}
"""{prompt: (its version, a digest of its text)}."""
SEED = 3


def run(harvested, directory, **settings):
    return explain_planted(harvested, directory, seed=SEED, **settings)


@pytest.fixture(scope="module")
def by_rules(harvested, tmp_path_factory):
    directory = tmp_path_factory.mktemp("explain")
    explanations, scores = run(harvested, directory)
    return directory, explanations, scores


def score_of(scores, name, explainer="rules", scorer="detection"):
    return scores.row(
        by_predicate=(pl.col("feature") == NAMES.index(name)) & (pl.col("explainer") == explainer) & (pl.col("scorer") == scorer),
        named=True,
    )


@pytest.mark.parametrize("name", ["set", "bigram", "conditioned"])
@pytest.mark.parametrize("scorer", ["detection", "fuzzing"])
def test_planted_features_are_explained(by_rules, name, scorer):
    row = score_of(by_rules[2], name, scorer=scorer)
    assert row["score"] >= (0.99 if name != "conditioned" else 0.9)
    assert row["ci_low"] <= row["score"] <= row["ci_high"]


def test_scores_rest_on_enough_windows_half_of_the_negatives_near_misses(by_rules):
    for row in by_rules[2].filter(scorer="detection", explainer="rules").iter_rows(named=True):
        detail = json.loads(row["detail"])
        assert detail["n_pos"] >= 20 and detail["n_neg"] >= 20 and row["n"] == detail["n_pos"] + detail["n_neg"]
        near = detail["negatives"].copy()
        assert near.pop("random") == sum(near.values()) == 15
        assert set(near) <= {SAME_TOKENS, SIMILAR_DECODER, COACTIVATING}
        assert row["n_failed"] == 0


def test_windows_are_read_alike_from_harvests_of_earlier_versions(harvested, tmp_path):
    """Whose contexts have their tokens and all activations with them."""
    made = [HarvestedWindows(path, seed=SEED) for path in (harvested, write_harvest(tmp_path, earlier=True))]
    assert made[0].live().equals(made[1].live()) and made[0].label_names == made[1].label_names
    for feature in range(len(NAMES)):
        one, other = (windows.examples(0, feature) for windows in made)
        assert one.shortage == other.shortage
        for mine, theirs in zip(one[:4], other[:4], strict=True):
            assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(mine, theirs, strict=True))


def test_a_window_of_two_peaks_is_one_example(tmp_path):
    windows = write_harvest(tmp_path) / "tables/windows/layer-00.parquet"
    rows = pl.read_parquet(windows)
    rows.vstack(rows.with_columns(position=pl.col("position") + 1)).write_parquet(windows)
    twice, once = HarvestedWindows(tmp_path, seed=SEED), HarvestedWindows(write_harvest(tmp_path / "once"), seed=SEED)
    for mine, theirs in zip(twice.examples(0, 0)[:4], once.examples(0, 0)[:4], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_chance_and_another_features_explanation_stand_beside_each_score(by_rules):
    own = by_rules[2].filter(explainer="rules")
    for baseline, n_without in (
        ("baseline:shuffled", 0),
        ("baseline:other_feature", 1),
    ):  # before the first feature there is no other
        rows = by_rules[2].filter(explainer=baseline)
        assert (
            rows.select("feature", "scorer").rows()
            == own.filter(pl.col("feature") >= n_without).select("feature", "scorer").rows()
        )
        assert rows["score"].mean() < own["score"].mean() - 0.2
    shown = dict(by_rules[1].filter(explainer="rules", status="ok").select("feature", "text").iter_rows())
    borrowed = dict(by_rules[1].filter(explainer="baseline:other_feature").select("feature", "text").iter_rows())
    for feature, text in borrowed.items():
        assert text in [shown[other] for other in range(feature)]


def test_features_that_the_spec_names_are_explained_alone_live_or_not(harvested, tmp_path):
    only = [[0, NAMES.index(name)] for name in ("rare", "bigram", "set")]
    explanations, scores = run(harvested, tmp_path, features=Features(only=only))
    own = dict(explanations.filter(explainer="rules").select("feature", "status").iter_rows())
    assert own == {0: "ok", 1: "ok", NAMES.index("rare"): "too_few_contexts"} and set(scores["feature"]) == {0, 1}
    explanations, _ = run(harvested, tmp_path / "limited", features=Features(only=only, top_by="density", limit=1))
    assert set(explanations["feature"]) == {0}
    with pytest.raises(CltdbError, match=r"1 of 2 features that never fire, such as \[7, 0\]"):
        run(harvested, tmp_path / "gone", features=Features(only=[[0, 1], [7, 0]]))


def test_naming_features_is_in_the_key_only_where_it_is_done():
    assert Explain().result_settings()["features"] == {"top_by": "density", "limit": None}
    assert Explain(features={"only": [[0, 3]]}).result_settings()["features"]["only"] == [[0, 3]]
    for wrong in ([], [[0]], [[0, -1]], [[0, 1], [0, 1]], ["0:1"]):
        with pytest.raises(ValueError, match="only|each feature"):
            Features(only=wrong)


def test_top_tokens_do_worse_where_context_matters(by_rules):
    assert score_of(by_rules[2], "conditioned", "baseline:top_tokens")["score"] < score_of(by_rules[2], "conditioned")["score"]
    assert score_of(by_rules[2], "set", "baseline:top_tokens")["score"] >= 0.99


def test_a_live_feature_with_too_few_windows_is_listed(harvested, by_rules):
    live = HarvestedWindows(harvested, seed=SEED).live()
    assert NAMES.index("rare") in live["feature"].to_list()
    rows = by_rules[1].filter(feature=NAMES.index("rare"))
    assert rows["status"].to_list() == ["too_few_contexts"]
    assert "needed" in rows["error"][0]
    assert not len(by_rules[2].filter(feature=NAMES.index("rare")))
    summary = json.loads((by_rules[0] / "summary.json").read_text())
    assert summary["n_live"] == len(NAMES)
    assert summary["explainers"]["rules"]["input"]["status"] == {"ok": 4, "too_few_contexts": 1}


@pytest.mark.parametrize(
    ("n_live", "said"), [(0, "no feature is live, .* 20 contexts from 10 documents"), (3, "none of the chosen")]
)
def test_why_nothing_is_explained_is_said(tmp_path, n_live, said):
    summarise(tmp_path, Explain(), n_live=n_live)
    (line,) = STAGE.lines({"explain": tmp_path})
    assert re.search(said, line)


def test_explanations_say_what_the_feature_does(by_rules):
    texts = dict(by_rules[1].filter(explainer="rules").select("feature", "text").iter_rows())
    named = {name: re.findall(r"'(\w+)'", texts[NAMES.index(name)]) for name in ("set", "bigram")}
    assert texts[NAMES.index("set")].startswith("fires on ") and sorted(named["set"]) == ["w1", "w2", "w3"]
    assert "'w5' after 'w" in texts[NAMES.index("bigram")] and set(named["bigram"]) == {"w5", "w6", "w7", "w8"}
    assert "'w10'" in texts[NAMES.index("conditioned")]
    rows = by_rules[1].filter(explainer="rules", status="ok")
    assert rows["cost_usd"].to_list() == [0.0] * 4 and set(rows["model"]) == {RULES_MODEL}


def test_training_and_test_documents_are_disjoint(harvested):
    windows = HarvestedWindows(harvested, seed=SEED)
    for feature in range(len(NAMES)):
        examples = windows.examples(0, feature)
        made, tested = (
            set(np.concatenate([part.documents for part in parts]).tolist()) for parts in (examples[:2], examples[2:4])
        )
        assert not made & tested
        assert in_test_half(np.array(sorted(tested)), SEED).all() and not in_test_half(np.array(sorted(made)), SEED).any()
        assert all((part.activations > 0).any(axis=1).all() for part in (examples.training_positives, examples.test_positives))


def test_negatives_are_silent_and_near_misses_are_near(harvested):
    windows = HarvestedWindows(harvested, seed=SEED)
    examples = windows.examples(0, NAMES.index("conditioned"))
    negatives = examples.test_negatives
    rule = FEATURES["conditioned"]
    assert not any(rule(row.tolist(), place, None) for row in negatives.tokens for place in range(16))
    assert all(9 in row for row in negatives.tokens[negatives.kinds == SAME_TOKENS].tolist())
    assert (negatives.kinds == SAME_TOKENS).sum() >= 5


def test_a_killed_run_goes_on_to_the_same_rows(harvested, by_rules, tmp_path, monkeypatch):
    monkeypatch.setattr("cltdb.explain.explain.BLOCK", 2)
    monkeypatch.setattr("cltdb.explain.explain.BLOCKS_AHEAD", 1)
    score, scored = Pipeline._judged, []

    async def dies(self, subject, *rest):
        scored.append(subject.feature)
        if len(scored) == 11:  # two features by two scorers, own and top tokens, are 8
            raise RuntimeError("killed")
        return await score(self, subject, *rest)

    whole = tables_of(run(harvested, tmp_path / "whole"))
    monkeypatch.setattr(Pipeline, "_judged", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run(harvested, tmp_path / "killed")
    asked = counted(monkeypatch)
    again = tables_of(run(harvested, tmp_path / "killed"))
    assert asked == {
        "rules": 0,
        "scores": 8,
    }  # all explanations and the scores of features 0 and 1 were there; feature 4 has too few
    assert (tmp_path / "whole/summary.json").read_bytes() == (tmp_path / "killed/summary.json").read_bytes()
    assert all(frame.equals(again[table]) for table, frame in whole.items())


def counted(monkeypatch):
    """{"rules": explanations made by rules, "scores": explanations scored by a scorer, baselines of their own texts too}, from now on."""
    asked, explain, judged = {"rules": 0, "scores": 0}, rules.explain, Pipeline._judged

    def counting(subjects):
        asked["rules"] += len(subjects)
        return explain(subjects)

    async def scoring(self, subject, *rest):
        rows = await judged(self, subject, *rest)
        asked["scores"] += bool(rows)
        return rows

    monkeypatch.setattr(rules, "explain", counting)
    monkeypatch.setattr(Pipeline, "_judged", scoring)
    return asked


def tables_of(frames):
    """{table: rows} without times."""
    return {
        table: frame.drop("created_at", strict=False) for table, frame in zip(("explanations", "scores"), frames, strict=True)
    }


def in_workspace(harvested, workspace, name, **settings):
    """{table: rows} of an artifact of a workspace."""
    directory = workspace / "explain" / name
    return tables_of(run(harvested, directory, units=Units(workspace, directory), **settings))


@pytest.mark.parametrize(
    ("first", "then", "new"),
    [
        ({"features": Features(limit=2)}, {}, {"rules": 2, "scores": 8}),
        ({"scorers": ["detection"]}, {}, {"rules": 0, "scores": 8}),
        ({}, {"scorers": ["fuzzing"]}, {"rules": 0, "scores": 0}),
        ({}, {"features": Features(limit=3)}, {"rules": 0, "scores": 0}),
        ({"features": Features(top_by="layer")}, {}, {"rules": 0, "scores": 0}),
    ],
)
def test_another_artifact_makes_only_what_is_new_and_is_as_from_scratch(harvested, tmp_path, monkeypatch, first, then, new):
    in_workspace(harvested, tmp_path / "both", "first", **first)
    asked = counted(monkeypatch)
    reused = in_workspace(harvested, tmp_path / "both", "then", **then)
    assert asked == new
    scratch = in_workspace(harvested, tmp_path / "alone", "then", **then)
    for table, frame in scratch.items():
        assert frame.equals(reused[table]), table


@pytest.mark.parametrize(
    ("kind", "n_again"), [("explanations", {"rules": 4, "scores": 0}), ("scores", {"rules": 0, "scores": 5})]
)
def test_a_flipped_byte_in_a_unit_is_said_and_the_unit_made_again(harvested, tmp_path, monkeypatch, caplog, kind, n_again):
    whole = in_workspace(harvested, tmp_path, "first")
    of_rules = [key for key in stored_units.keys(tmp_path, kind) if "top_tokens" not in key]
    for key, place in zip(of_rules, (-2, 12, 40, 3, 0), strict=False):
        stored_units.flip(tmp_path, kind, key, place)
    asked = counted(monkeypatch)
    again = in_workspace(harvested, tmp_path, "second")
    assert asked == n_again and caplog.text.count("is damaged") == 5
    assert all(frame.equals(again[table]) for table, frame in whole.items())


def test_several_processes_make_the_rows_of_one(harvested, tmp_path, monkeypatch):
    monkeypatch.setattr("cltdb.explain.explain.BLOCK", 2)
    alone = tables_of(run(harvested, tmp_path / "one"))
    for n_processes in (2, 4):
        shared = tables_of(run(harvested, tmp_path / str(n_processes), n_processes=n_processes))
        for table, frame in alone.items():
            keys = [name for name in ("layer", "feature", "side", "explainer", "scorer") if name in frame.columns]
            assert frame.sort(keys).equals(shared[table].sort(keys))
        assert (tmp_path / "one/summary.json").read_bytes() == (tmp_path / str(n_processes) / "summary.json").read_bytes()
    again = tables_of(run(harvested, tmp_path / "4"))  # what four processes left is gone
    assert all(frame.equals(again[table]) for table, frame in alone.items())


def test_features_are_chosen_in_order(harvested, tmp_path):
    explanations, _ = run(harvested, tmp_path, features=Features(top_by="density", limit=2), scorers=["detection"])
    assert sorted(set(explanations["feature"])) == [0, 1]


def test_a_sample_has_as_many_of_each_layer_and_tenth_of_density():
    rng = np.random.default_rng(0)
    n = 400
    places = {"layer": np.arange(n) % 4, "feature": np.arange(n)}
    candidates = pl.DataFrame(places | {"density": rng.random(n) ** 3, "max_activation": 1.0})
    drawn = stratified(candidates, 80, ["layer", "density"], 5)
    assert drawn.n_unique() == 80 and stratified(candidates, 80, ["layer", "density"], 5).equals(drawn)
    tenth = candidates.with_columns(tenth=(pl.col("density").rank("ordinal") - 1) * 10 // n)
    per_stratum = drawn.join(tenth, on=["layer", "feature"]).group_by("layer", "tenth").len()
    assert len(per_stratum) == 40 and set(per_stratum["len"]) == {2}
    assert not stratified(candidates, 80, ["layer", "density"], 6).equals(drawn)
    assert stratified(candidates, 1000, ["layer"], 5).sort("feature").equals(candidates)


def test_the_spec_names_what_there_is():
    assert set(ExplainerName.__args__) == set(EXPLAINERS) and set(ScorerName.__args__) == set(SCORERS)
    assert {name for name in EXPLAINERS if asks(name)} == set(ASKING) - {"intruder"}
    assert set(BaselineName.__args__) == {"shuffled", "other_feature", "top_tokens", *BASELINE_DICTIONARIES}
    for wrong in (
        {"explainers": ["llm"]},
        {"scorers": ["intruder"]},
        {"scorers": ["detection", "intervention"]},
        {"scorers": ["detection", "detection"]},
        {"explainers": []},
    ):
        with pytest.raises(ValueError):
            Explain(**wrong)


def test_nothing_is_set_in_baseline_dictionaries():
    section = Explain(explainers=["top_logits", "rules"], scorers=["intervention", "pick_one"], baselines=["untrained"])
    assert section.of_baselines().scorers == ["pick_one"]


def test_prompts_change_with_their_versions():
    """A text that changes gets another version, which is in the keys of what was asked with it."""
    assert versions() == {name: version for name, (version, _) in PROMPTS.items()}
    assert {name: digest_of(name) for name in PROMPTS} == {name: digest for name, (_, digest) in PROMPTS.items()}


def digest_of(name):
    return hashlib.sha256("\n".join(prompt(name)[1:]).encode()).hexdigest()[:16]


def test_rules_need_no_network(harvested, tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    frames = tables_of(run(harvested, tmp_path, explainers=["rules", "single_token"]))
    assert set(frames["scores"]["explainer"]) >= {"rules", "single_token"}
