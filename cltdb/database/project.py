"""Section `database` of the cltdb.yaml that rules a database.

Most say nothing but the path. That is read without pydantic, whose import takes a quarter of the start of a command that asks, and where the
whole file is as plain as the one of `cltdb init`, without PyYAML, whose import takes a tenth of it.
"""

import re
from pathlib import Path
from types import SimpleNamespace

from cltdb.engine.workspace import PROJECT_FILE

PLAIN_PATH = re.compile(r"[\w./-]{1,4000}")
"""Of which no check in settings.py thinks otherwise."""
_WORD = r"(?!(?:true|false|null|yes|no|on|off|y|n)\b)[a-z][a-z0-9_./-]*"
PLAIN_LINE = re.compile(rf"(?:({_WORD}): ({_WORD}|\{{{_WORD}: {_WORD}\}}))?(?:(?:^| +)#[ -~]*)?")
"""A line of YAML that says one key and a word, or one key within it and a word, or nothing, whichever lines stand above and below."""


class PathAlone(SimpleNamespace):
    """The section where nothing but a plain path is said: the fields of `settings.Database` with their defaults."""

    def __init__(self, path="cltdb.duckdb"):
        super().__init__(path=path, memory_limit=None, threads=None, search=SimpleNamespace(embeddings=None, glossary=None))


def database_section(start):
    """(folder, section `database`) of the cltdb.yaml in folder `start` or above; None where there is none. Of the file nothing else is looked
    at: questions work where another section has an error."""
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            said = _plain_section(folder / PROJECT_FILE)
            if said is None:
                from cltdb.engine.yaml_text import read_keys

                said = read_keys(folder / PROJECT_FILE).values.get("database", {})
            if said == {} or isinstance(said, dict) and [*said] == ["path"] and _is_plain(said["path"]):
                return folder, PathAlone(**said)
            from cltdb.database.settings import Database
            from cltdb.engine.config import project_section

            return project_section(folder, "database", Database)
    return None


def _plain_section(path):
    """Section `database` of a file of plain lines, each of another key; None of another file, which takes a parser."""
    try:
        lines = [PLAIN_LINE.fullmatch(line) for line in path.read_bytes().decode("ascii").split("\n")]
    except (OSError, UnicodeDecodeError):
        return None
    said = [line.groups() for line in lines if line and line[1]]
    keys = [key for key, _ in said]
    if None in lines or len({*keys}) < len(keys):
        return None
    value = dict(said).get("database", "{}")
    return dict(pair.split(": ") for pair in [value[1:-1]] if pair) if value[0] == "{" else None


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
