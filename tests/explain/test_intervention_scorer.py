"""What setting features raises: by construction, against `cltdb.intervene`, and as scores."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from worlds import dictionaries, models, projects
from worlds.planted import explain_planted
from worlds.shared import made_once

import cltdb
from cltdb.engine.stage import Job
from cltdb.engine.units import Units
from cltdb.errors import CltdbError
from cltdb.explain.interventions import Interventions, Prompted, prompts_of
from cltdb.explain.subjects import Subjects
from cltdb.model.transcoder import Dictionary
from cltdb.replacement.interventions import Setting
from cltdb.spec import load
from cltdb.stages import STAGES

SEED = 3


def windows(n_documents=3, *, n_features=12):
    """Random windows of two for each document, those of the last document in the training half."""
    tokens = np.random.default_rng(0).integers(1, 257, (2 * n_documents, 20))
    documents = np.repeat(np.arange(n_documents), 2)
    features = pl.DataFrame({"layer": 0, "feature": range(n_features), "max_activation": 2.0})
    named = {"pool_tokens": tokens, "pool_documents": documents, "pool_in_test": documents < n_documents - 1}
    return SimpleNamespace(**named, seed=SEED, features=features)


@pytest.mark.parametrize(
    ("architecture", "of"),
    [
        ("gpt2", {}),
        ("gpt_neox", {"activation": "batchtopk"}),
        ("gemma2", {"kind": "plt", "activation": "topk", "skip": True}),
    ],
)
def test_rises_are_those_of_an_intervention_in_mode_free(architecture, of):
    lm, dictionary = models.language_model(architecture), dictionaries.random(dtype=torch.float32, **of)
    few, wanted = windows(), {0: {3: 4.0, 7: 1.5}, 1: {2: 3.0}}
    prompted = Prompted(lm, dictionary, few)
    for layer, values in wanted.items():
        rises = prompted.rises(layer, list(values), list(values.values()))
        for row, (feature, value) in zip(rises, values.items(), strict=True):
            expected = []
            for prompt in prompts_of(few, lm.bos_token_id):
                setting = Setting(layer, feature, -1, "set", value)
                logits = cltdb.intervene(lm, dictionary, prompt, [setting], mode="free", n_logits=257).logits.sort("token")
                expected.append(np.log(logits["probability_after"] / logits["probability_before"]))
            assert np.abs(row.numpy() - np.mean(expected, axis=0)).max() < 1e-5 < np.abs(expected).max()


def test_prompts_are_the_same_length_of_documents_that_test():
    own = windows(20)
    own.pool_tokens[0, 3] = 0  # BOS inside
    own.pool_tokens[2:4, 10:] = -1  # short: no window of document 1 is left
    prompts = prompts_of(own, 0)
    rows = [next(row for row, tokens in enumerate(own.pool_tokens) if tokens[:15].tolist() == prompt[1:]) for prompt in prompts]
    assert len(prompts) == 8 and {prompt[0] for prompt in prompts} == {0} and {len(prompt) for prompt in prompts} == {16}
    assert len(set(own.pool_documents[rows])) == 8 and own.pool_in_test[rows].all()
    assert {0, 2, 3} & set(rows) == set() and prompts_of(own, 0) == prompts
    own.pool_in_test[:] = False
    with pytest.raises(CltdbError, match="no window of 15 tokens"):
        prompts_of(own, 0)


# Features that write what is known: those of the planted harvest, in a model of one layer with orthogonal unembeddings.


def writing():
    """(model, dictionary): feature n raises tokens 7n to 7n + 6, which the harvest says that it promotes, in that order, and no others. All that
    the model writes itself is in dimensions that no token is read from."""
    lm = models.language_model(n_layers=1, d_model=64, vocab_size=46, tie_word_embeddings=False)
    with torch.no_grad():
        lm.unembedding.weight[:] = torch.eye(46, 64)
        for own in (lm.embedding, lm.hf.transformer.wpe, lm.blocks[0].attention.c_proj, lm.blocks[0].mlp.c_proj):
            own.weight[:, :46] = 0
    W_dec = torch.zeros(5, 1, 64)
    for feature in range(5):
        for index in range(7):
            W_dec[feature, 0, 7 * feature + index] = 10 - index
    W_enc, b_enc, b_dec = torch.zeros(1, 5, 64), torch.full((1, 5), -1.0), torch.zeros(1, 64)
    return lm, Dictionary(kind="plt", activation="relu", W_enc=W_enc, b_enc=b_enc, W_dec=[W_dec], b_dec=b_dec)


@pytest.fixture
def scored(harvested, tmp_path):
    """scored(name, load): (explanations, scores) of an artifact of one workspace."""
    own = Subjects(harvested, vocabulary=[], seed=SEED, base="b").windows

    def run(name, load):
        directory = tmp_path / "explain" / name
        units = Units(tmp_path, directory)
        raised = Interventions(own, load, units=units, base="b").raised
        of = {"explainers": ["rules", "top_logits"], "scorers": ["detection", "intervention"]}
        return explain_planted(harvested, directory, seed=SEED, units=units, raised=raised, **of)

    run.windows, run.units = own, Units(tmp_path, tmp_path / "explain/other")
    return run


def test_what_a_feature_writes_is_what_rises_and_is_measured_once(scored):
    loaded = []

    def load():
        loaded.append(1)
        return writing()

    interventions = Interventions(scored.windows, load, units=scored.units, base="b")
    raised = interventions.raised(0, [*range(5), 77])
    assert raised == {feature: list(range(7 * feature, 7 * feature + 7)) for feature in range(5)} | {77: []}
    assert interventions.raised(0, [4, 4]) == {4: raised[4]} and loaded == [1]
    assert Interventions(scored.windows, None, units=scored.units, base="b").raised(0, [1, 3]) == {1: raised[1], 3: raised[3]}
    with pytest.raises(TypeError):
        Interventions(scored.windows, None, units=scored.units, base="another").raised(0, [1])


def test_the_text_of_what_it_promotes_finds_what_rises(scored):
    explanations, scores = scored("first", writing)
    own = explanations.filter(explainer="top_logits").sort("feature")
    assert own["text"][1] == "promotes 'w7', 'w9', 'w11' or 'w13'" and json.loads(own["rule"][1]) == {"promotes": [7, 9, 11, 13]}
    found = scores.filter(scorer="intervention")
    assert set(found["side"]) == {"output"} and found.filter(explainer="top_logits")["score"].to_list() == [1.0] * 5
    assert found.filter(explainer="baseline:shuffled")["score"].mean() < 0.4
    assert (
        found.filter(explainer="baseline:other_feature")["score"].to_list() == [0.0] * 4
    )  # it names what one of the others raises
    detail = json.loads(found.filter(explainer="top_logits")["detail"][0])
    assert (detail["judge"], detail["chance"], detail["n_right"]) == ("rule", 0.2, 20)
    assert scores.filter(scorer="detection", side="output").is_empty()
    again = scored("second", None)[1]  # from the workspace: no model is loaded
    assert scores.equals(again)


def test_the_stage_measures_with_the_model_and_dictionary_of_its_inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interventions") / "project"
    shutil.copytree(made_once(tmp_path_factory, "published [1]", projects.with_published), folder)
    of = ["explain.explainers=[top_logits]", "explain.scorers=[intervention]", "explain.features={top_by: layer, limit: 5}"]
    loaded = load(folder / "published.yaml", overrides=of)
    inputs = {stage: next((folder / "artifacts" / stage).glob("????????????????")) for stage in ("model", "train", "harvest")}
    keys, directory = {stage: path.name for stage, path in inputs.items()}, folder / "artifacts/explain/interventions"
    STAGES["explain"].run(Job(STAGES["explain"], loaded.experiment, loaded.project, directory.name, directory, inputs, keys))
    scores = pl.read_parquet(directory / "tables/scores/*.parquet").filter(explainer="top_logits")
    assert len(scores) and set(scores["scorer"]) == {"intervention"} and scores["score"].mean() > 0.6
