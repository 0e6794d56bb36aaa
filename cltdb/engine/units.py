"""Units of work that artifacts share: replies of language models, explanations, scores, graphs.

A unit is known by what it is made from, whatever artifact asks for it: one more prompt, scorer or feature makes only what is new.
`<workspace>/units/<kind>/<key>.json` is a record with a digest of its own; a graph is a folder of tables and such a record, which
holds their hashes. Units are written aside and renamed in place; of two processes that make the same one, the first is kept. A unit
that is damaged is said and made again. Artifacts hold their rows themselves and list the units they used in `units-<rank>.txt`:
`cltdb gc` removes what no artifact lists. Imports neither torch nor tables: `cltdb plan` counts units.
"""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from cltdb.engine import integrity
from cltdb.engine.workspace import explain_full_disk, remove_folder
from cltdb.errors import DataError

logger = logging.getLogger(__name__)
FOLDER, UNIT = "units", "unit.json"
REPLIES, EXPLANATIONS, SCORES, GRAPHS = "replies", "explanations", "scores", "graphs"
PAID = (REPLIES,)
"""Kinds that `--force` does not make again, since they cost money."""
ABANDONED_S = 86_400
"""A file that was written aside and is older than this belongs to no living process."""


class Units:
    """The units of a workspace, for one artifact in the making: `directory`, where what it uses is listed."""

    def __init__(self, workspace, directory, *, rank=0):
        self.root, directory = Path(workspace) / FOLDER, Path(directory)
        self.artifact = f"{directory.parent.name}/{directory.name.removesuffix('.partial')}"
        self._list, self._listed, self._lock = directory / f"units-{rank}.txt", set(), threading.Lock()

    def get(self, kind, key):
        """The record of a unit, None where there is none that is whole."""
        self._note(kind, key)
        return _whole_record(self.root / kind / f"{key}.json", kind, key)

    def put(self, kind, key, record):
        """Stores a unit, a JSON object."""
        self._note(kind, key)
        _write_record(self.root / kind / f"{key}.json", {**record, "unit": f"{kind}/{key}"})

    def folder(self, kind, key):
        """(record, folder) of a unit that is a folder, its files compared with their hashes; None where there is none that is whole."""
        self._note(kind, key)
        folder = self.root / kind / key
        record = _whole_record(folder / UNIT, kind, key)
        if record is None:
            return None
        for fault in _file_faults(folder, record):
            logger.warning("%s; it is made again", fault)
            return None
        return record, folder

    def put_folder(self, kind, key, record, write):
        """Stores a unit whose files `write(folder)` makes; returns (record, folder). One that is there and whole stays."""
        self._note(kind, key)
        folder, aside = self.root / kind / key, self.root / kind / f".{key}.{uuid4().hex}.tmp"
        aside.mkdir(parents=True)
        try:
            write(aside)
            files = {path.name: _facts(path) for path in sorted(aside.iterdir())}
            _write_record(aside / UNIT, {**record, "files": files, "unit": f"{kind}/{key}"})
            if folder.exists() and (there := self.folder(kind, key)):
                return there
            with suppress(FileNotFoundError):  # another process was faster
                remove_folder(folder)
            with suppress(OSError):
                os.rename(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        there = self.folder(kind, key)
        if there is None:
            raise DataError(
                str(folder), found="a folder that cannot be replaced", expected="one unit", do="remove it and run again"
            )
        return there

    def _note(self, kind, key):
        """Lists a unit as used, before it is read or written: `cltdb gc` looks at the lists last."""
        name = f"{kind}/{key}"
        with self._lock:
            if name not in self._listed:
                self._list.parent.mkdir(parents=True, exist_ok=True)
                with explain_full_disk(self._list), open(self._list, "a", encoding="utf-8") as file:
                    file.write(f"\n{name}" if not self._listed else name)  # what a kill tore is a line of its own
                    file.write("\n")
                self._listed.add(name)


def _write_record(path, record):
    """Writes a record aside and renames it in place. Not forced to the disk: what a crash tears is not whole and made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with explain_full_disk(path):
        try:
            aside.write_text(json.dumps(integrity.sealed(record), allow_nan=False), encoding="utf-8")
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def _whole_record(path, kind, key):
    """The record in a file; None where there is none, or one that is not what was written, which is said."""
    try:
        return _read_record(path, f"{kind}/{key}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s is damaged (%s); it is made again", path, error)
        return None


def _read_record(path, name):
    """The record of the unit `name`; ValueError or OSError where it is not what was written."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or record.get("unit") != name or integrity.sealed(record) != record:
        raise ValueError("another content than was written")
    return record


def _facts(path):
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _file_faults(folder, record):
    """A text for each file of a folder that is not as its record says."""
    for name, facts in record["files"].items():
        try:
            if _facts(folder / name) != facts:
                yield f"{folder / name} is damaged (other bytes than were written)"
        except OSError as error:
            yield f"{folder / name} is damaged ({error})"


# What is there, and what of it is wanted.


class There(NamedTuple):
    """What of a stage's work other artifacts have done already: `text` for a plan, n_units of the units that its time grows with, None
    where they are not counted."""

    text: str
    n_units: int | None


def score_group(base, scorer):
    """What the keys of all scores by one scorer have in common; base: of the keys of their explanations."""
    return f"{base}-{scorer}"


def has_folder(workspace, kind, key):
    """Whether a unit that is a folder is there, as far as names tell."""
    return (Path(workspace) / FOLDER / kind / key / UNIT).is_file()


def count(workspace, kind, group):
    """How many records of a group (the part of their keys before the slash) are there, as far as names tell."""
    folder = Path(workspace) / FOLDER / kind / group
    return sum(path.suffix == ".json" and path.name[0] != "." for path in folder.iterdir()) if folder.is_dir() else 0


def _stored(root):
    """{kind/key: path of its record} of all units."""
    names = {}
    for path in (root / FOLDER).rglob("*.json"):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            place = path.parent if path.name == UNIT else path.with_suffix("")
            names[place.relative_to(root / FOLDER).as_posix()] = path
    return names


def used_by(directory):
    """Names, kind/key, of the units that an artifact lists."""
    return {
        line
        for path in Path(directory).glob("units-*.txt")
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n")
    }


def forget(workspace, directories):
    """Removes the units that artifacts list and that cost no money, so that they are made again."""
    stored = _stored(Path(workspace)) if any(Path(directory).exists() for directory in directories) else {}
    for name in sorted({name for directory in directories for name in used_by(directory)} & stored.keys()):
        if name.partition("/")[0] not in PAID:
            _remove(stored[name])


def unused(workspace, *, ignoring=()):
    """Paths of units that no artifact lists, finished or not, and of files that killed processes left, sorted; ignoring: artifacts whose
    lists do not count."""
    root, skipped = Path(workspace), {Path(directory) for directory in ignoring}
    stored = _stored(root)
    used = set().union(*(used_by(directory) for directory in root.glob("*/*") if directory.is_dir() and directory not in skipped))
    old = time.time() - ABANDONED_S
    left = (path for pattern in (".*.tmp", ".*.removed") for path in (root / FOLDER).rglob(pattern))
    places = [path.parent if path.name == UNIT else path for name, path in stored.items() if name not in used]
    return sorted([*places, *(path for path in left if path.lstat().st_mtime < old)])


def remove(places):
    """Removes what `unused` found."""
    for place in places:
        if place.is_dir():
            remove_folder(place)
        else:
            place.unlink(missing_ok=True)


def _remove(record):
    remove([record.parent if record.name == UNIT else record])


def damage(workspace):
    """A DataError for each stored unit that is not what was written."""
    for name, path in sorted(_stored(Path(workspace)).items()):
        where, do = f"{path} (a unit of {name.partition('/')[0]})", "remove it: it is made again when it is next wanted"
        try:
            record = _read_record(path, name)
        except (OSError, ValueError) as error:
            yield DataError(where, found=f"a damaged record ({error})", expected="what was written", do=do)
            continue
        for fault in _file_faults(path.parent, record) if path.name == UNIT else ():
            yield DataError(where, found=fault, expected="what was written", do=do)
