"""Two dictionaries in folders compared, of which no spec of this project is known or still makes them: by their weights alone, stored as what a user made."""

from pathlib import Path
from tempfile import TemporaryDirectory

from cltdb.engine.content import fingerprint
from cltdb.engine.integrity import checked
from cltdb.engine.workspace import MATCHES, Workspace, digest, read_json, read_parquet
from cltdb.match.models import model_of, of_one_model
from cltdb.match.run import TABLES, Side, chosen_by, match_dictionaries
from cltdb.model.transcoder import load_dictionary

VERSION = 2
"""Of what is stored."""


def name_of(folder):
    """The dict_id of the dictionary in a folder; of one without the folder's name."""
    return read_json(checked(folder / "dictionary.json")).get("dict_id") or folder.name


def _are_of_one_model(folders, a, b, project):
    """Whether two dictionaries are of one model: by what the models are where the workspace has both, else by their names."""
    one, other = (model_of(folder, project) for folder in folders)
    return of_one_model(a.info, b.info.get("model_id")) if None in (one, other) else one == other


def match_folders(folders, settings, project):
    """(key, directory) of the artifact with the matches of the dictionaries in two folders, made where it is not there yet. settings: section `Match`,
    without correlations."""
    names = [name_of(folder) for folder in folders]
    if names[0] == names[1] and folders[0] != folders[1]:
        names = list(map(str, folders))
    contents = [fingerprint([folder / "dictionary.json", folder / "dictionary.safetensors"]) for folder in folders]
    models, workspace = [model_of(folder, project) for folder in folders], Workspace(project.workspace)
    key = digest([VERSION, names, contents, models, settings.result_settings()])
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
