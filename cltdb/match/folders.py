"""Two dictionaries in folders compared, of which no spec of this project is known or still makes them: by their weights alone, stored as what a user made."""

from pathlib import Path
from tempfile import TemporaryDirectory

from cltdb.engine.content import fingerprint
from cltdb.engine.integrity import checked
from cltdb.engine.workspace import MANIFEST, MATCHES, Workspace, digest, read_json, read_parquet
from cltdb.match.run import TABLES, Side, chosen_by, match_dictionaries
from cltdb.model.source import MODEL_FILE
from cltdb.model.transcoder import load_dictionary

VERSION = 2
"""Of what is stored."""


def name_of(folder):
    """The dict_id of the dictionary in a folder; of one without the folder's name."""
    return read_json(checked(folder / "dictionary.json")).get("dict_id") or folder.name


def of_one_model(info, other_id):
    """Whether what `dictionary.json` says of a dictionary leaves it to be of the model of that id: the last parts of ids are compared."""
    last_part = lambda name: str(name).rstrip("/").rpartition("/")[2].lower()  # noqa: E731
    return None in (info.get("model_id"), other_id) or last_part(info["model_id"]) == last_part(other_id)


def model_folder(folder, project):
    """The artifact that holds the model of the dictionary in a train artifact; None of a folder that is none of this workspace."""
    root = Workspace(project.workspace).root
    if folder.parent.absolute() != (root / "train").absolute() or not (folder / MANIFEST).is_file():
        return None
    key = read_json(folder / MANIFEST)["key_parts"].get("input model")
    found = sorted(root.glob(f"*/{key}/{MODEL_FILE}"))
    return found[0].parent if found else None


def _are_of_one_model(folders, a, b, project):
    """Whether two dictionaries are of one model: by what the models are where the workspace has both, else by their names."""
    models = [model_folder(folder, project) for folder in folders]
    if None in models:
        return of_one_model(a.info, b.info.get("model_id"))
    one, other = (read_json(checked(model / MODEL_FILE)).get("fingerprint") for model in models)
    return one == other


def match_folders(folders, settings, project):
    """(key, directory) of the artifact with the matches of the dictionaries in two folders, made where it is not there yet. settings: section `Match`,
    without correlations."""
    names = [name_of(folder) for folder in folders]
    if names[0] == names[1] and folders[0] != folders[1]:
        names = list(map(str, folders))
    contents = [fingerprint([folder / "dictionary.json", folder / "dictionary.safetensors"]) for folder in folders]
    key, workspace = digest([VERSION, names, contents, settings.result_settings()]), Workspace(project.workspace)
    if not workspace.is_finished(MATCHES, key):
        a, b = map(load_dictionary, folders)
        one_model = _are_of_one_model(folders, a, b, project)
        by, one_space = chosen_by(settings, a, b, one_model=one_model), a.reads == b.reads
        sides = [Side(name, dictionary) for name, dictionary in zip(names, (a, b), strict=True)]
        with TemporaryDirectory() as made:
            match_dictionaries(*sides, directory=made, by=by, threshold=settings.threshold, one_space=one_space)
            frames = {table: read_parquet(*sorted((Path(made) / "tables" / table).glob("*.parquet"))) for table in TABLES}
        workspace.store(MATCHES, key, frames, part="matches", about={"version": VERSION})
    return key, workspace.artifact(MATCHES, key)
