"""Section `database` of the cltdb.yaml that rules a database.

Most say nothing but the path. That is read without pydantic, whose import takes a quarter of the start of a command that asks.
"""

import re
from pathlib import Path
from types import SimpleNamespace

PLAIN_PATH = re.compile(r"[\w./-]{1,4000}")
"""Of which no check in settings.py thinks otherwise."""


class PathAlone(SimpleNamespace):
    """The section where nothing but a plain path is said: the fields of `settings.Database` with their defaults."""

    def __init__(self, path="cltdb.duckdb"):
        super().__init__(path=path, memory_limit=None, threads=None, search=SimpleNamespace(embeddings=None, glossary=None))


def database_section(start):
    """(folder, section `database`) of the cltdb.yaml in folder `start` or above; None where there is none. Of the file nothing else is looked
    at: questions work where another section has an error."""
    from cltdb.engine.yaml_text import PROJECT_FILE, read_keys

    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            said = read_keys(folder / PROJECT_FILE).values.get("database", {})
            if said == {} or isinstance(said, dict) and [*said] == ["path"] and _is_plain(said["path"]):
                return folder, PathAlone(**said)
            from cltdb.database.settings import Database
            from cltdb.engine.config import project_section

            return project_section(folder, "database", Database)
    return None


def _is_plain(path):
    return isinstance(path, str) and PLAIN_PATH.fullmatch(path) is not None


def naming_section(path):
    """The section that names the database at `path`: that of its own folder or above, or of the working directory's. None where none does."""
    path = Path(path).resolve()
    for start in (path.parent, Path.cwd()):
        folder, section = database_section(start) or (start, None)
        if section and (folder / section.path).resolve() == path:
            return section
    return None


def project_settings(path):
    """What the project of the database at `path` says of it; the defaults where it belongs to none."""
    return naming_section(path) or PathAlone()


def asked_section(path):
    """(folder, section) that rules how `path`, a database or an exported folder, is searched: that of its folder or above, else of the working
    directory's project. None where there is none."""
    return database_section(Path(path).resolve().parent) or database_section(Path.cwd())


def project_database(start):
    """Path of the database of the project that folder `start` belongs to."""
    start = Path(start).resolve()
    folder, section = database_section(start) or (start, PathAlone())
    return folder / section.path
