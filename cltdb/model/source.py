"""Where the model of a spec is: a local folder, the embedded toy world, or the Hub at a commit. Imports torch only to read the model."""

import json
from functools import lru_cache
from pathlib import Path

from cltdb.engine import revisions
from cltdb.engine.content import fingerprint
from cltdb.engine.integrity import checked
from cltdb.engine.workspace import read_json
from cltdb.errors import CltdbError
from cltdb.memory import without_garbage

LANGUAGE_MODEL = "language_model"
"""The one kind of models so far, also of artifacts whose `model.json` names none."""
MODEL_FILE = "model.json"
"""In the artifact of stage model, or of a stage that stands for it: what the model is and where it is loaded from."""


def model_source(model_id, root):
    """A model id as `load_model` takes it: a local directory becomes absolute, relative to the project."""
    local = Path(root) / model_id
    return str(local) if model_id != "toyworld" and local.is_dir() else model_id


def is_on_hub(experiment, project):
    source = model_source(experiment.model.id, project.root)
    return source != "toyworld" and not Path(source).is_dir()


def model_standing(experiment, project):
    """Which commit a model of the Hub stands at."""
    model = experiment.model
    return revisions.standing("model", model.id, model.revision, where="model.id", workspace=project.workspace)


def pinned_revision(experiment, project):
    """The revision of the model: of one on the Hub the commit that its branch stands at, where that is known."""
    standing = model_standing(experiment, project) if is_on_hub(experiment, project) else None
    return standing and standing.commit or experiment.model.revision


def model_content(experiment, project):
    """What stands for the content of the model in a key."""
    source = model_source(experiment.model.id, project.root)
    if source == "toyworld":
        from cltdb.toyworld import MODEL_DIR

        source = str(MODEL_DIR)
    if not Path(source).is_dir():
        return {"revision": pinned_revision(experiment, project)}
    suffixes = (".json", ".safetensors", ".model", ".txt", ".jinja")
    return {"files": fingerprint(path for path in Path(source).iterdir() if path.suffix in suffixes)}


def spec_model(experiment, project):
    """The LanguageModel that an experiment's section `model` describes, before any stage has run."""
    model = experiment.model
    return _loaded(
        experiment,
        source=model_source(model.id, project.root),
        revision=pinned_revision(experiment, project),
        dtype=model.dtype,
        mlp_input=model.mlp_input,
        model_id=model.id,
    )


def language_model(job):
    """The LanguageModel that a stage reads: that of its input `model`, or of the spec while stage model itself runs."""
    if "model" not in job.inputs:
        return spec_model(job.experiment, job.project)
    return made_model(job.experiment, job.project, job.inputs["model"])


def made_model(experiment, project, directory):
    """The LanguageModel of the artifact of stage model, or of a stage that stands for it, in `directory`; CltdbError where its files have
    become others since.

    `model.json` there says what is loaded: a model of `kind` from `path` (a Hub id, toyworld, or a folder relative to the project) at
    `revision`, or, where a stage has made other weights, from the folder `weights` of the artifact itself.
    """
    facts = {"kind": LANGUAGE_MODEL, **read_json(checked(directory / MODEL_FILE))}
    if facts["kind"] != LANGUAGE_MODEL:
        found, do = f"a model of kind {facts['kind']}", "use the cltdb that has made it, or a newer one"
        raise CltdbError(str(directory / MODEL_FILE), found=found, expected=f"kind {LANGUAGE_MODEL}", do=do)
    own = facts.get("weights")
    lm = _loaded(
        experiment,
        source=str(directory / own) if own else model_source(facts.get("path", facts["model_id"]), project.root),
        revision=facts["revision"],
        dtype=facts["dtype"],
        mlp_input=facts["mlp_input"],
        model_id=facts["model_id"],
    )
    if facts.get("fingerprint") != lm.fingerprint:
        raise CltdbError(
            f"model {lm.model_id}",
            found=f"other weights, config or tokenizer (fingerprint {lm.fingerprint}) than stage {directory.parent.name} has loaded",
            expected=f"those of {directory} (fingerprint {facts.get('fingerprint')})",
            do="run again once its files are in place and no longer change: the stages that depend on them are made anew",
        )
    return lm


def _loaded(experiment, *, source, **facts):
    from cltdb.model.loading import load_model

    lm = load_model(source, device=experiment.model.device, **facts)
    lm.special_tokens_in_text = experiment.activations.special_tokens_in_text
    return lm


def sizes_and_tokens(experiment, project):
    """The model of an experiment without its weights (`load_sizes_and_tokens`), read once while its files stay as they are."""
    lm = _sizes_and_tokens(
        model_source(experiment.model.id, project.root),
        pinned_revision(experiment, project),
        experiment.model.id,
        json.dumps(model_content(experiment, project)),
    )
    lm.special_tokens_in_text = experiment.activations.special_tokens_in_text
    return lm


@lru_cache(maxsize=2)
@without_garbage()
def _sizes_and_tokens(source, revision, model_id, _content):
    from cltdb.model.loading import load_sizes_and_tokens

    return load_sizes_and_tokens(source, revision=revision, model_id=model_id)
