"""The model that later stages load: what the artifact of stage model, or of a stage that stands for it, says it is."""

import json

import pytest
import torch
from worlds import models

import cltdb
from cltdb.engine.workspace import write_json
from cltdb.errors import CltdbError
from cltdb.model.language_model import LanguageModel
from cltdb.model.source import made_model, spec_model
from cltdb.spec import load

SPEC = "name: e\nmodel: {id: model}\nactivations: {text: [{toyworld: true}]}\n"


@pytest.fixture
def made(tmp_path):
    """(experiment, project, directory of an artifact that names what the spec does)."""
    models.saved(tmp_path / "model")
    (tmp_path / "cltdb.yaml").write_text("")
    (tmp_path / "e.yaml").write_text(SPEC)
    loaded = load(tmp_path / "e.yaml")
    lm = spec_model(loaded.experiment, loaded.project)
    facts = {"model_id": "model", "revision": "main", "dtype": "float32", "mlp_input": "normed", "fingerprint": lm.fingerprint}
    directory = tmp_path / "artifacts/model/key"
    write_json(directory / "model.json", facts)
    return loaded.experiment, loaded.project, directory


def change(directory, **facts):
    path = directory / "model.json"
    write_json(path, {**json.loads(path.read_text()), **facts})


def test_an_artifact_without_kind_and_path_is_a_language_model_of_its_id(made):
    lm = made_model(*made)
    assert isinstance(lm, LanguageModel) and lm.model_id == "model"
    change(made[2], kind="language_model", path="model")
    assert made_model(*made).fingerprint == lm.fingerprint


def test_weights_of_the_artifact_are_read_in_the_place_of_the_models_own(made):
    experiment, project, directory = made
    changed, weights = spec_model(experiment, project), directory / "weights"
    with torch.no_grad():
        changed.hf.get_output_embeddings().weight.mul_(2)
    changed.hf.save_pretrained(weights)
    changed.tokenizer.save_pretrained(weights)
    change(directory, weights="weights", fingerprint=cltdb.load_model(str(weights)).fingerprint)
    found = made_model(*made)
    assert torch.equal(found.hf.get_output_embeddings().weight, changed.hf.get_output_embeddings().weight)
    assert found.fingerprint != spec_model(experiment, project).fingerprint and found.model_id == "model"


def test_another_kind_is_refused(made):
    change(made[2], kind="diffusion_transformer")
    with pytest.raises(CltdbError, match="found a model of kind diffusion_transformer; expected kind language_model"):
        made_model(*made)


def test_files_that_became_others_are_refused(made):
    change(made[2], fingerprint="0" * 16)
    with pytest.raises(CltdbError, match="run again once its files are in place"):
        made_model(*made)
