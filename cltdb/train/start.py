"""Training that goes on from a finished dictionary (`train.start`): which one that is, and whether it fits. Imports torch only to read it.

Its encoders, decoders, biases, skip path and JumpReLU thresholds are the first weights; thresholds of batchtopk are calibrated again at the
end. Optimizer, schedules and counts of silent tokens begin anew, the controller of relu and jumprelu at l0 instead of init_l0.
"""

import glob
from pathlib import Path

from cltdb.engine.content import fingerprint
from cltdb.engine.integrity import checked
from cltdb.engine.workspace import MANIFEST, Workspace, read_json
from cltdb.errors import CltdbError
from cltdb.model.kinds import KINDS

INFO_FILE, TENSORS_FILE = "dictionary.json", "dictionary.safetensors"
WHERE = "train.start"


def start_folder(start, project, *, where=WHERE):
    """The folder of the dictionary that a key, train.start or `where`, names: itself, or in the workspace by dict_id or as the last one that an
    experiment has finished."""
    folder, workspace = Path(project.root) / start, Workspace(project.workspace)
    if (folder / INFO_FILE).is_file():
        return folder
    for made in sorted(workspace.root.glob(f"train/{glob.escape(start[-8:])}*/{MANIFEST}")):
        if read_json(checked(made.parent / INFO_FILE))["dict_id"] == start:
            return made.parent
    finished = [record for record in workspace.runs_of_experiment(start, "train") if record["status"] == "done"]
    finished = [record for record in finished if workspace.is_finished("train", record["key"])]
    if finished:
        return workspace.artifact("train", max(finished, key=lambda record: record["started_at"])["key"])
    if points := sorted({record["experiment"] for record in workspace.experiment_records() if record.get("sweep") == start}):
        found, do = f"{start!r}, a sweep of {len(points)} experiments", f"name one of them, such as {points[0]}"
        raise CltdbError(where, found=found, expected="one dictionary", do=do)
    raise CltdbError(
        where,
        found=f"{start!r}, a folder without {INFO_FILE}" if folder.is_dir() else repr(start),
        expected=f"a dict_id of this workspace, an experiment whose training is finished, or a folder with {INFO_FILE}",
        do="cltdb import it first"
        if folder.is_dir()
        else "run that experiment first, or see: cltdb sql 'SELECT dict_id, experiment FROM dictionaries'",
    )


def start_content(folder):
    """What stands for the dictionary in a folder in a key: its dict_id and the content of its files, however it is named."""
    info = read_json(checked(folder / INFO_FILE))
    return {"dict_id": info.get("dict_id"), "files": fingerprint([folder / INFO_FILE, folder / TENSORS_FILE])}


def start_dictionary(settings, project, model):
    """The `Dictionary` that section `train` starts from; CltdbError where it is another than that section asks for.

    model: model_id, n_layers, d_model, mlp_input and, where it is known, input_hook of what it is to be trained on."""
    from cltdb.model.transcoder import load_dictionary

    dictionary = load_dictionary(start_folder(settings.start, project))
    for what, found, expected in _compared(dictionary, settings, model):
        if found != expected:
            raise CltdbError(
                WHERE,
                found=f"{what} {_shown(found)} in {dictionary.info.get('dict_id') or settings.start}",
                expected=f"{what} {_shown(expected)}, as the spec has it",
                do="start from another dictionary, or set the spec to what this one is",
            )
    threshold = dictionary.threshold if dictionary.activation == "jumprelu" else None
    if threshold is not None and not bool(((threshold > 0) & threshold.isfinite())[list(dictionary.layers)].all()):
        raise CltdbError(
            WHERE,
            found="JumpReLU thresholds that are not positive and finite",
            expected="positive ones, whose logarithms can be trained",
            do="start from another dictionary",
        )
    return dictionary


def _compared(dictionary, settings, model):
    """(what, of the dictionary, of the spec) of all that has to be the same."""
    info, last_part = dictionary.info, lambda name: str(name).rstrip("/").rpartition("/")[2].lower()
    layers = settings.layers or list(range(model["n_layers"]))
    if "model_id" in info:
        yield "model", last_part(info["model_id"]), last_part(model["model_id"])
    yield "n_layers", dictionary.n_layers, model["n_layers"]
    yield "d_model", dictionary.d_model, model["d_model"]
    yield "kind", dictionary.kind, settings.kind
    yield "activation", dictionary.activation, settings.activation
    yield "n_features", dictionary.n_features, settings.n_features
    yield "layers", list(dictionary.layers), layers
    yield "skip", dictionary.W_skip is not None, settings.skip
    if KINDS[dictionary.kind].reconstructs:
        yield "reads", dictionary.reads, settings.place
    yield "mlp_input", info.get("mlp_input", model["mlp_input"]), model["mlp_input"]
    hook = info.get("input_hook")
    if hook == "ln2.hook_normalized":
        yield "hook point", hook, "mlp.hook_in"
    if {hook, model.get("input_hook")} == {"hook_resid_pre", "hook_resid_mid"}:
        yield "hook point", hook, model["input_hook"]
    yield "sites", info.get("sites"), None
    for number, layer in enumerate(layers if settings.decoder_span else []):
        beyond = [target - layer for target in layers[number + settings.decoder_span :]]
        writes = KINDS[dictionary.kind].spans and bool(dictionary.W_dec[layer][:, beyond].any())
        yield "decoders beyond decoder_span", writes, False


def _shown(value):
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)
