"""Units of work that artifacts share: replies of language models, explanations, scores, graphs, harvests of baseline dictionaries.

A unit is known by what it is made from, whatever artifact asks for it: one more prompt, scorer or feature makes only what is new.
A record is a row of one SQLite file (`unit_records`), which also says which artifacts use it. Graphs and harvests are folders of tables,
`<workspace>/units/<kind>/<key>/`, with a record that holds their hashes; they are written aside and renamed in place, and artifacts list those
they use in `units-<rank>.txt`. Of two processes that make the same unit, the first is kept. A unit that is damaged is said and made again.
Artifacts hold their rows themselves: `cltdb gc` removes the units that no artifact uses. Imports neither torch nor tables: `cltdb plan` counts units.
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

from cltdb.engine import integrity, unit_records
from cltdb.engine.workspace import explain_full_disk, remove_folder
from cltdb.errors import DataError

logger = logging.getLogger(__name__)
FOLDER, UNIT = "units", "unit.json"
REPLIES, EXPLANATIONS, SCORES, GRAPHS, HARVESTS = "replies", "explanations", "scores", "graphs", "harvests"
PAID = (REPLIES,)
"""Kinds that `--force` does not make again, since they cost money."""
ABANDONED_S = 86_400
"""A file that was written aside and is older than this belongs to no living process."""


class Units:
    """The units of a workspace, for one artifact in the making, in `directory`. From any number of threads."""

    def __init__(self, workspace, directory, *, rank=0):
        self.root, self.artifact = Path(workspace) / FOLDER, unit_records.artifact_name(directory)
        self._records = unit_records.Records(self.root, directory)
        self._list, self._listed, self._lock = Path(directory) / f"units-{rank}.txt", set(), threading.Lock()

    def get(self, kind, key):
        """The record of a unit, None where there is none that is whole."""
        return self.get_many(kind, [key]).get(key)

    def get_many(self, kind, keys):
        """{key: record} of the units that are there and whole."""
        return self._records.get_many(kind, keys)

    def used(self, kind):
        """Yields the records of the units that the artifact uses, also those that it used before it was killed or, of a kind that costs money, forced."""
        return self._records.used(kind)

    def put(self, kind, key, record):
        """Stores a unit, a JSON object. One that is there and whole stays. What was put is kept, whatever ends the process."""
        self.put_many(kind, {key: record})

    def put_many(self, kind, records):
        """Stores units, {key: record}, all or none of them."""
        self._records.put_many(kind, records)

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
        """Stores a unit whose files `write(folder)` makes, none of them JSON; returns (record, folder). One that is there and whole
        stays."""
        self._note(kind, key)
        folder, aside = self.root / kind / key, self.root / kind / f".{key}.{uuid4().hex}.tmp"
        aside.mkdir(parents=True)
        try:
            write(aside)
            paths = [path for path in sorted(aside.rglob("*")) if path.is_file()]
            files = {path.relative_to(aside).as_posix(): _facts(path) for path in paths}
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
        """Lists a folder as used, before it is read or written: `cltdb gc` looks at the lists last."""
        name = f"{kind}/{key}"
        with self._lock:
            if name not in self._listed:
                self._list.parent.mkdir(parents=True, exist_ok=True)
                with explain_full_disk(self._list), open(self._list, "a", encoding="utf-8") as file:
                    file.write(f"\n{name}" if not self._listed else name)  # what a kill tore is a line of its own
                    file.write("\n")
                self._listed.add(name)


def _write_record(path, record):
    with explain_full_disk(path):
        path.write_text(json.dumps(integrity.sealed(record), allow_nan=False), encoding="utf-8")


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


def has_folder(workspace, kind, key):
    """Whether a unit that is a folder is there, as far as names tell."""
    return (Path(workspace) / FOLDER / kind / key / UNIT).is_file()


def count(workspace, kind, group):
    """How many records of a group (the part of their keys before the slash) are there, as far as names tell."""
    return unit_records.count(Path(workspace) / FOLDER, kind, group)


def _folders(root):
    """{kind/key: path} of all units that are folders."""
    paths = (path.parent for path in (root / FOLDER).glob(f"*/[!.]*/{UNIT}"))
    return {path.relative_to(root / FOLDER).as_posix(): path for path in paths}


def used_by(directory):
    """Names, kind/key, of the folders that an artifact lists."""
    return {
        line
        for path in Path(directory).glob("units-*.txt")
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n")
    }


def forget(workspace, directories):
    """Removes the units that artifacts use and that cost no money, so that they are made again."""
    root = Path(workspace)
    folders = _folders(root)
    for name in sorted(set().union(*map(used_by, directories)) & folders.keys()):
        remove_folder(folders[name])
    unit_records.forget(root / FOLDER, sorted(set(map(unit_records.artifact_name, directories))), keeping=PAID)


class Unused(NamedTuple):
    """Units that no artifact uses. folders: their paths, and those of what killed processes left, sorted; records: {kind: number}."""

    folders: list
    records: dict


def unused(workspace, *, ignoring=(), delete=False):
    """The `Unused` units, removed if `delete`; ignoring: directories of artifacts that do not count."""
    root, ignored = Path(workspace), {Path(directory) for directory in ignoring}
    artifacts = [directory for directory in root.glob("*/*") if directory.is_dir() and directory not in ignored]
    folders, used = _folders(root), set().union(*map(used_by, artifacts))
    old = time.time() - ABANDONED_S
    left = (path for pattern in (".*.tmp", ".*.removed") for path in (root / FOLDER).rglob(pattern))
    places = [path for name, path in folders.items() if name not in used]
    found = sorted([*places, *(path for path in left if path.lstat().st_mtime < old)])
    if delete:
        for path in found:
            remove_folder(path) if path.is_dir() else path.unlink(missing_ok=True)

    def lives(name):
        directories = (root / name, root / f"{name}.partial")
        return any(directory.is_dir() and directory not in ignored for directory in directories)

    return Unused(found, unit_records.unused(root / FOLDER, lives=lives, delete=delete))


def damage(workspace):
    """A DataError for each stored unit that is not what was written."""
    for name, path in sorted(_folders(Path(workspace)).items()):
        where, do = f"{path} (a unit of {name.partition('/')[0]})", "remove it: it is made again when it is next wanted"
        try:
            record = _read_record(path / UNIT, name)
        except (OSError, ValueError) as error:
            yield DataError(where, found=f"a damaged record ({error})", expected="what was written", do=do)
            continue
        for fault in _file_faults(path, record):
            yield DataError(where, found=fault, expected="what was written", do=do)
    yield from unit_records.faults(Path(workspace) / FOLDER)
