"""The stage: its tables against the graphs of its prompts, and what is made again."""

import json
import re
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from worlds import projects, tables
from worlds.numbers import N_LAYERS, VOCAB, dictionary, language_model

import cltdb
from cltdb.database.check import check
from cltdb.database.load import load_artifact, load_artifacts
from cltdb.engine import unit_records
from cltdb.engine.plan import plan
from cltdb.engine.run import run
from cltdb.engine.units import Units
from cltdb.groups import substitution, traces
from cltdb.groups.label_features import Candidate
from cltdb.groups.matching import Matched
from cltdb.groups.overlap import place_values
from cltdb.groups.prompts import ParallelPrompt
from cltdb.groups.run import Comparison
from cltdb.groups.settings import Groups, ParallelPrompts, Substitute
from cltdb.groups.stage import lines
from cltdb.groups.tables import write_rows
from cltdb.spec import load

NAMES = {"groups_id": "tiny-groups-00000000", "dict_id": "tiny-clt-00000000"}
SETTINGS = Groups(prompts=ParallelPrompts(file="unread.jsonl"), resamples=100)
TEXTS = {
    ("one", "a"): "7 3 19",
    ("one", "b"): "8 3 19 4",
    ("two", "a"): "7 5",
    ("two", "b"): "8 5 4",
    ("three", "a"): "7 9",
    ("three", "b"): "8 9 4",
}
PROMPTS = [
    ParallelPrompt(concept=concept, label=label, text=text, target=text.split()[0]) for (concept, label), text in TEXTS.items()
]


def comparison_of(directory, prompts=PROMPTS, *, workspace=None, settings=SETTINGS):
    return Comparison(
        settings,
        prompts,
        language_model(),
        dictionary(),
        Units(workspace or directory / "workspace", directory),
        key="key",
        key_of=lambda text, target: f"{text}-{target}".replace(" ", "-"),
        seed=lambda purpose: 0,
        write=partial(write_rows, directory, NAMES),
        groups_id=NAMES["groups_id"],
    )


def compare(directory, *, workspace=None):
    comparison_of(directory, workspace=workspace).overlaps()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("groups")
    compare(directory)
    return directory


def read(artifact, table):
    return pl.read_parquet(artifact / "tables" / table / "*.parquet")


def test_traces_are_the_features_of_the_prompts_graphs(artifact):
    rows = read(artifact, "group_prompts").to_dicts()
    assert [(row["concept"], row["label"]) for row in rows] == list(TEXTS)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        graph = cltdb.attribute(language_model(), dictionary(), prompt.text, target=prompt.target)
        probabilities = graph.replacement.logits[-1].softmax(-1)
        assert row["target_token"] == int(prompt.target) and row["top_token"] == int(probabilities.argmax())
        assert row["probability"] == pytest.approx(float(probabilities[int(prompt.target)]))
        influence = graph.nodes.with_columns(share=pl.col("influence") / row["probability"])  # whose target has the weight 1
        for kind in ("feature", "error"):
            per_layer = influence.filter(kind=kind).group_by("layer").agg(pl.col("share").sum())
            assert row[f"{kind}_influence"] == pytest.approx(per_layer.sort("layer")["share"].to_list())
        active = (graph.replacement.activations > 0).sum((0, 2))
        assert row["n_active"] == active.tolist() and row["tokens"] == list(graph.index.tokens)


def test_without_targets_the_likeliest_tokens_are_the_answer(tmp_path):
    asked, units = traces.Asked("one", PROMPTS[0].text, None, "key"), Units(tmp_path, tmp_path)
    [one] = traces.traces_of([asked], language_model(), dictionary(), units=units, max_features=None)
    graph = cltdb.attribute(language_model(), dictionary(), PROMPTS[0].text)
    weight = float(graph.targets.weights.sum())
    assert one.influence == pytest.approx(graph.influence[graph.index.features] / weight) and weight < 1
    assert one.facts["target_token"] is None and one.facts["probability"] is None


def test_sets_of_active_features_are_those_of_the_encoder(artifact, tmp_path):
    lm, d = language_model(), dictionary()
    asked = traces.Asked("two", PROMPTS[1].text, {PROMPTS[1].target: 1.0}, "key")
    [one] = traces.traces_of([asked], lm, d, units=Units(tmp_path, tmp_path), max_features=2)
    graph = cltdb.attribute(lm, d, PROMPTS[1].text, target=PROMPTS[1].target, max_features=2)
    dense, embeddings = graph.effects.adjacency.dense(), graph.index.is_kind("embedding")
    logit = int(graph.index.is_kind("logit").argmax())
    for node in range(graph.index.features.stop):
        lost = graph.total_effects({node: -float(graph.feature_activations[node])})[logit]
        assert one.effect[node] == pytest.approx(-lost)
    for node, share in enumerate(one.embedding_share):
        mass = abs(dense[node]).sum()
        expected = abs(dense[node, embeddings]).sum() / mass if graph.effects.expanded[node] else np.nan
        assert share == pytest.approx(expected, nan_ok=True)
    tokens = torch.tensor([lm.prompt_tokens(PROMPTS[1].text)])
    active = d.encode(lm.run(tokens, with_logits=False).mlp_input[0]) > 0
    for layer in range(N_LAYERS):
        free = place_values([one], layer, keyed_by="free", weighting="none")
        assert free.shape == (1, int(active[1:, layer].any(0).sum()))
        end = place_values([one], layer, keyed_by="end", weighting="none")
        assert end.shape == (1, int(active[1:, layer].sum()))


def test_a_killed_run_goes_on_after_its_last_prompt(artifact, tmp_path, monkeypatch):
    make, made = traces.attribute, []

    def dies(lm, dictionary, prompt, **options):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(prompt)
        return make(lm, dictionary, prompt, **options)

    monkeypatch.setattr(traces, "attribute", dies)
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path / "one", workspace=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path / "one", workspace=tmp_path)
    assert len(made) == 4
    monkeypatch.setattr(traces, "attribute", make)
    compare(tmp_path / "one", workspace=tmp_path)
    for table in ("group_prompts", "group_overlaps"):
        assert read(tmp_path / "one", table).equals(read(artifact, table))


def test_a_pair_of_labels_is_substituted_once(tmp_path, monkeypatch, caplog):
    """A killed run goes on after its last pair; what a pair lacks is said, and what no label feature stands for."""
    settings = SETTINGS.model_copy(
        update={"substitute": Substitute(features=[1], positions=["last"], suppress=[0], boost=[1, 2], random_draws=1)}
    )
    words = {"one": "333", "two": "445", "three": "667", "four": "889"}
    prompts = [
        ParallelPrompt(concept=c, label=g, text="7 3", target=w)
        for c, of in words.items()
        for g, w in zip("abc", of, strict=True)
    ]
    asked, made = [], substitution.Substitution.of_pair

    def pairs(todo, *pair_and_advance):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(pair_and_advance[:2])
        return made(todo, *pair_and_advance)

    def substitute(folder):
        comparison = comparison_of(folder, prompts, workspace=tmp_path, settings=settings)
        late = {"a": [Candidate("a", 0, 3, *[1.0] * 6)], "b": [], "c": [Candidate("c", 1, 5, *[1.0] * 6)]}
        columns = {(0, 3): 0, (1, 5): 1, (0, 4): 2, (1, 6): 3}
        comparison._substitute(late, [(0, 4), (1, 6)], columns, np.full((N_LAYERS, 30), 0.1), np.ones((3, 4)))
        return {table: read(folder, table) for table in ("substitutions", "interventions", "intervention_effects")}

    whole = substitute(tmp_path / "whole")
    assert [record.getMessage() for record in caplog.records] == [
        f"groups: no substitution of {a} by {b}: fewer than two concepts have different answers" for a, b in ("ab", "ba")
    ]
    monkeypatch.setattr(substitution.Substitution, "of_pair", pairs)
    assert all(frame.equals(whole[table]) for table, frame in substitute(tmp_path / "whole").items()) and asked == []
    unit_records.forget(tmp_path / "units", [unit_records.artifact_name(tmp_path / "whole")], keeping=())
    for _ in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            substitute(tmp_path / "whole")
    assert asked == [("a", "c"), ("b", "c"), ("c", "a")]
    monkeypatch.setattr(substitution.Substitution, "of_pair", made)
    again = substitute(tmp_path / "whole")
    assert again["substitutions"].equals(whole["substitutions"]) and whole["substitutions"]["label_from"].n_unique() == 3


def test_labels_whose_text_is_not_compared_are_said(tmp_path, caplog):
    matched = Matched(np.array([0, 1]), np.array([[3, 0], [0, 2]]), None)
    comparison_of(tmp_path)._warn_of_labels_apart(matched)
    said = "groups: the text of {} has tokens of no frequency in common with that of {}, so auc_matched compares it with none and is NULL"
    assert caplog.messages == [said.format("a", "b"), said.format("b", "a")]


def test_the_database_takes_the_rows_and_queries_say_them(artifact, tmp_path):
    path = tmp_path / "cltdb.duckdb"
    facts = {"dict_id": NAMES["dict_id"], "model_id": "tiny-gpt2", "n_layers": N_LAYERS, "n_features": 30, "kind": "clt"}
    tables.load(
        path,
        tmp_path,
        "train-key",
        {**tables.model("tiny-gpt2", [str(token) for token in range(VOCAB)]), "dictionaries": [facts]},
    )
    load_artifact(path, key="groups-key", directory=artifact)
    assert check(path, full=True) == []
    db, rows = cltdb.open(path), read(artifact, "group_overlaps")
    curve = db.query("overlap_by_layer", keyed_by="end", weighting="influence")
    assert curve["layer"].to_list() == [0, 1, 2] * 2 and curve["label_a"].to_list() == [None] * 3 + ["a"] * 3
    of_end = rows.filter(keyed_by="end", weighting="influence").filter(pl.col("label_a") == "a")
    for column, kind, value in (
        ("overlap", "none", "value"),
        ("same_label_low", "same_label", "ci_low"),
        ("corrected", "other_label", "corrected"),
    ):
        assert curve[column].to_list()[3:] == of_end.filter(null_kind=kind)[value].to_list()
    layers, prompts = db.query("group_layers"), read(artifact, "group_prompts")
    of_a = prompts.filter(label="a").select(pl.col("feature_influence", "error_influence").list.get(1).sum()).row(0)
    row = layers.filter(label="a", layer=1).to_dicts()[0]
    assert (row["feature_influence"] * 3, row["error_influence"] * 3) == pytest.approx(of_a)
    assert row["error_share"] == pytest.approx(of_a[1] / sum(of_a))
    answers = db.query("group_list").to_dicts()
    assert [(row["label"], row["n_concepts"], row["mean_tokens"]) for row in answers] == [("a", 3, 10 / 3), ("b", 3, 13 / 3)]
    right = prompts.filter(pl.col("top_token") == pl.col("target_token"))["label"].to_list()
    assert [row["accuracy"] for row in answers] == [right.count(label) / 3 for label in "ab"]


SPEC = """
groups:
  prompts: {file: parallel.jsonl}
  resamples: 100
  label_features: {recurrence: 0, influence: 1, top: 2}
  tokens: 3_000
  substitute: {features: [1], positions: [all], suppress: [0], boost: [1, 2], new_tokens: 2, random_draws: 2}
"""
CAPITALS = (
    ("Portugal", "Lisbon", "Lissabon"),
    ("Japan", "Tokyo", "Tokio"),
    ("Greece", "Athens", "Athen"),
    ("Peru", "Lima", "Lima"),
)


def test_a_spec_with_the_section_has_the_stage(tmp_path):
    """Another prompt makes the stage anew from the units of the others; a label's other name makes none."""
    folder = projects.with_dictionary(tmp_path, SPEC)
    lines_of = [
        json.dumps({"concept": country, "label": label, "text": f"{text} {country} {verb}", "target": capital})
        for country, *capitals in CAPITALS
        for label, text, verb, capital in zip(
            ("en", "de"), ("The capital of", "Die Hauptstadt von"), ("is", "ist"), capitals, strict=True
        )
    ]
    (folder / "parallel.jsonl").write_text("\n".join(lines_of[:6]))
    loaded = load(folder / "small.yaml")
    wanted = loaded.experiment.needed("groups")
    assert wanted == {"model", "train", "groups"}

    def planned():
        return {item.stage: item for item in plan(load(folder / "small.yaml"))}["groups"]

    made = {result.stage: result.directory for result in run(loaded, wanted=wanted)}
    assert planned().action == "cached" and lines(made)[0].startswith(
        f"  groups {made['groups'].name[:8]}: de, en; overlap less chance is highest in layer "
    )
    assert re.fullmatch(r"  label features: de [0-9], en [0-9]", lines(made)[1])
    assert re.match(r"  substitutions: 2 of 2 pairs of labels; right answers .* random features at most ", lines(made)[2])
    rows = read(made["groups"], "substitutions")
    assert rows.group_by("label_from", "label_to", "part").len().sort("label_from", "part")["len"].to_list() == [2, 5, 2, 5]
    assert rows.filter(part="test", control="none")["n"].to_list() == [1, 1] and rows["rate_right"].is_between(0, 1).all()
    interventions, effects = (read(made["groups"], table) for table in ("interventions", "intervention_effects"))
    assert interventions.height == 2 and interventions["given"].list.len().max() == 2
    assert set(effects["intervention_id"]) == set(interventions["intervention_id"])
    load_artifacts(tmp_path / "of-groups.duckdb", [(directory.name, directory) for directory in made.values()])
    assert check(tmp_path / "of-groups.duckdb", full=True) == []
    names = read(made["groups"], "group_prompts").select("groups_id", "dict_id").unique().rows()
    assert names == [(f"small-groups-{made['groups'].name[:8]}", names[0][1])] and names[0][1].startswith("small-clt-")
    features, together = (read(made["groups"], table) for table in ("label_features", "label_scores"))
    assert set(features["label"]) == {"de", "en"} and features["rank"].max() == 2 and features["recurrence"].min() >= 2 / 3
    assert features["auc"].is_between(0, 1).all() and features.filter(layer=0)["embedding_share"].to_list() == pytest.approx(
        [1] * features.filter(layer=0).height
    )
    every = together.group_by("label", "first_layer").agg(pl.col("n_features").max()).filter(first_layer=0)
    assert dict(every.select("label", "n_features").iter_rows()) == dict(
        features.filter(pl.col("high") > 0).group_by("label").len().iter_rows()
    )
    (folder / "parallel.jsonl").write_text("\n".join(lines_of).replace('"de"', '"german"'))
    assert planned()[2:4] == ("run", "changed: prompts; 6 of 8 prompts are there")
    (folder / "parallel.jsonl").write_text("\n\n".join(lines_of[:6]))
    assert planned().action == "cached"
    (folder / "parallel.jsonl").unlink()
    assert planned().reason == "changed: prompts"
