"""Of which models dictionaries in folders are, as far as the workspace knows. Imports no torch."""

from cltdb.engine.integrity import checked
from cltdb.engine.workspace import MANIFEST, Workspace, read_json
from cltdb.model.source import MODEL_FILE


def model_folder(folder, project):
    """The artifact that holds the model of the dictionary in a train artifact; None of a folder that is none of this workspace."""
    root = Workspace(project.workspace).root
    if folder.parent.absolute() != (root / "train").absolute() or not (folder / MANIFEST).is_file():
        return None
    key = read_json(folder / MANIFEST)["key_parts"].get("input model")
    found = sorted(root.glob(f"*/{key}/{MODEL_FILE}"))
    return found[0].parent if found else None


def model_of(folder, project):
    """The fingerprint of the model of the dictionary in a folder; None of a folder whose model the workspace does not know."""
    model = model_folder(folder, project)
    return model and read_json(checked(model / MODEL_FILE)).get("fingerprint")


def of_one_model(info, other_id):
    """Whether what `dictionary.json` says of a dictionary leaves it to be of the model of that id: the last parts of ids are compared."""
    last_part = lambda name: str(name).rstrip("/").rpartition("/")[2].lower()  # noqa: E731
    return None in (info.get("model_id"), other_id) or last_part(info["model_id"]) == last_part(other_id)
