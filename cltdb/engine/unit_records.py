"""The records of units, all in one SQLite file: `<workspace>/units/records.sqlite`.

A row of `units` is a JSON object, compressed, with a digest of its name and content; a row of `uses` says which artifact uses which. What was put
is committed: no kill loses it. In WAL mode a power cut may lose the last seconds, and damages nothing. On file systems that several
machines see, where WAL would be damaged, SQLite's rollback journal is used. Of two processes that put the same unit the first is kept.
Imports neither torch nor tables, and sqlite3 only when it is used: `cltdb plan` counts units.
"""

import hashlib
import json
import logging
import os
import threading
import weakref
import zlib
from collections import defaultdict
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

from cltdb.engine import integrity
from cltdb.engine.locks import held
from cltdb.engine.workspace import DAMAGED, explain_full_disk
from cltdb.errors import CltdbError, DataError

logger = logging.getLogger(__name__)
FILE, LOCK = "records.sqlite", ".records.lock"
VERSION = 1
WAIT_S = 60
"""So long other processes that write are waited for."""
BATCH = 1000
"""Records of an earlier cltdb that are taken in by one transaction, or records that are looked through at a time."""
EARLIER = ("replies", "explanations", "scores")
"""Kinds of which an earlier cltdb wrote a JSON file per record."""
SHARED = {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "ceph", "beegfs", "glusterfs", "afs", "9p"}
"""File systems that several machines see; so are those that begin with fuse."""
UNUSABLE = (
    (
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        f"a file that others held for {WAIT_S} s",
        "wait for other processes to end and run again",
    ),
    (("SQLITE_READONLY", "SQLITE_CANTOPEN"), "a file that cannot be written", "run as a user who may write in the workspace"),
    ("", "a file that SQLite cannot use", "see whether the disk and its mount are sound and run again"),
)
"""(names of SQLite's errors, what was found, what to do), the first that fits."""
SCHEMA = (
    "CREATE TABLE units (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, record BLOB NOT NULL, digest BLOB NOT NULL,"
    " UNIQUE (kind, key))",
    "CREATE TABLE artifacts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE uses (artifact_id INTEGER, unit_id INTEGER, PRIMARY KEY (artifact_id, unit_id)) WITHOUT ROWID",
    f"PRAGMA user_version = {VERSION}",
)
GET = "SELECT record, digest, EXISTS (SELECT 1 FROM uses WHERE unit_id = id AND artifact_id = ?) FROM units WHERE kind = ? AND key = ?"
PUT = (
    "INSERT INTO units (kind, key, record, digest) VALUES (?, ?, ?, ?) ON CONFLICT (kind, key) DO UPDATE"
    " SET record = excluded.record, digest = excluded.digest WHERE NOT is_whole(kind, key, record, digest)"
)
USE = "INSERT OR IGNORE INTO uses (unit_id, artifact_id) SELECT id, ? FROM units WHERE kind = ? AND key = ?"


class Records:
    """The records of a workspace, for the artifact in the making in `directory`; from any number of threads. folder: that of all units."""

    def __init__(self, folder, directory):
        self.path, self.directory = Path(folder) / FILE, Path(directory)
        self._lock, self._connection, self._artifact_id = threading.Lock(), None, None

    def get_many(self, kind, keys):
        """{key: record} of those that are there and whole; they are used by the artifact from now on."""
        found, unused = {}, []
        with self._opened() as connection:
            for key in keys:
                row = connection.execute(GET, (self._artifact_id, kind, key)).fetchone()
                if row is None:
                    continue
                packed, digest, is_used = row
                if not _is_whole(kind, key, packed, digest):
                    logger.warning("%s: %s/%s is damaged; it is made again", self.path, kind, key)
                    continue
                found[key] = json.loads(zlib.decompress(packed))
                if not is_used:
                    unused.append(key)
            if unused:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(USE, [(self._artifact_id, kind, key) for key in unused])
        return found

    def used(self, kind):
        """Yields the records of the whole units that the artifact uses."""
        query = (
            "SELECT kind, key, record, digest, unit_id FROM uses CROSS JOIN units ON id = unit_id"
            " WHERE artifact_id = ? AND unit_id > ? AND kind = ? ORDER BY unit_id LIMIT ?"
        )
        last, rows = 0, True
        while rows:
            with self._opened() as connection:
                rows = connection.execute(query, (self._artifact_id, last, kind, BATCH)).fetchall()
            for *row, id in rows:
                if _is_whole(*row):
                    yield json.loads(zlib.decompress(row[2]))
                last = id

    def put_many(self, kind, records):
        """Stores {key: record}, in one transaction."""
        rows = [_row(kind, key, record) for key, record in records.items()]
        with self._opened() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(PUT, rows)
            connection.executemany(USE, [(self._artifact_id, kind, key) for key in records])

    @contextmanager
    def _opened(self):
        """The connection, which one thread uses at a time."""
        with self._lock, _explained(self.path):
            if self._connection is None:
                self.directory.mkdir(parents=True, exist_ok=True)  # by which `cltdb gc` knows a living artifact
                connection = _connect(self.path)
                self._artifact_id = _artifact_id(connection, artifact_name(self.directory))
                weakref.finalize(self, connection.close)
                self._connection = connection
            yield self._connection


def artifact_name(directory):
    """The name of an artifact, finished or in the making: `<stage>/<key>`."""
    directory = Path(directory)
    return f"{directory.parent.name}/{directory.name.removesuffix('.partial')}"


def _artifact_id(connection, name):
    connection.execute("INSERT OR IGNORE INTO artifacts (name) VALUES (?)", (name,))
    return connection.execute("SELECT id FROM artifacts WHERE name = ?", (name,)).fetchone()[0]


def _row(kind, key, record):
    packed = zlib.compress(json.dumps(record, allow_nan=False).encode(), 1)
    return kind, key, packed, _digest(kind, key, packed)


def _digest(kind, key, packed):
    return hashlib.sha256(f"{kind}/{key}\n".encode() + packed).digest()[:16]


def _is_whole(kind, key, packed, digest):
    """Whether a row is what was written, under its own name."""
    return isinstance(packed, bytes) and _digest(kind, key, packed) == digest


# The file.


def _connect(path):
    """A connection to write by; the file is made where there is none, and takes in what an earlier cltdb wrote as files."""
    import sqlite3

    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(LOCK)):  # one process at a time sets up the file
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        connection.create_function("is_whole", 4, _is_whole, deterministic=True)
        version = _version(path, connection)
        if version == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = "delete" if _is_shared(path) else "wal"
        if connection.execute("PRAGMA journal_mode").fetchone() != (mode,):
            connection.execute(f"PRAGMA journal_mode = {mode}")
        if version == 0:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in SCHEMA:
                    connection.execute(statement)
        _take_in(path.parent, connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _reading(path):
    """A connection to read by, None where no record was ever put. A workspace that cannot be written to may be read."""
    import sqlite3

    if not path.exists():
        return None
    for options in ("mode=rw", "mode=ro&immutable=1"):  # immutable: without the files beside it that WAL mode needs
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, timeout=WAIT_S, isolation_level=None)
        try:
            version = _version(path, connection)
            connection.create_function("is_whole", 4, _is_whole, deterministic=True)
            return connection if version else connection.close()
        except sqlite3.OperationalError as error:
            connection.close()
            if "immutable" in options or not error.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
                raise


def _version(path, connection):
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise DataError(
            str(path),
            found=f"a file of version {version}, of a later cltdb",
            expected=f"version {VERSION}",
            do="use the cltdb that made it, or a later one",
        )
    return version


def _is_shared(path):
    """Whether a file is on a file system that several machines may see."""
    with suppress(OSError):
        mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines()]
        parents = [path.absolute().resolve(), *path.absolute().resolve().parents]
        types = {Path(place.replace("\\040", " ")): type for _, place, type, *_ in mounts}
        type = next((types[parent] for parent in parents if parent in types), "")
        return type in SHARED or type.startswith("fuse")
    return False


@contextmanager
def _explained(path):
    """Turns what SQLite raises into one error that says what to do."""
    import sqlite3

    try:
        with explain_full_disk(path):
            yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None)
        if name is None:  # raised by no file, but by a wrong use of the library
            raise
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")):
            raise _damage(path, error) from error
        found, do = next((found, do) for names, found, do in UNUSABLE if name.startswith(names))
        raise CltdbError(str(path), found=f"{found} ({error})", expected="a file to read and write", do=do) from error


def _damage(path, fault):
    aside = path.parent / "damaged"
    return DataError(
        str(path),
        found=f"a damaged file ({fault})",
        expected="SQLite records as cltdb wrote them",
        do=f"move it away, `mkdir {aside} && mv {path}* {aside}`, and run again: artifacts stay; what was in it is made again, replies are asked for again",
    )


# Records that an earlier cltdb wrote as files.


def _earlier(folder):
    """Paths of the records that an earlier cltdb wrote as files, `<kind>/<group>/<name>.json`."""
    return (path for kind in EARLIER for path in (folder / kind).glob("*/*.json") if path.name[0] != ".")


def _take_in(folder, connection):
    """Takes the files of an earlier cltdb in, with what artifacts use of them, and removes them. What is damaged is set aside."""
    kinds = [folder / kind for kind in EARLIER if (folder / kind).is_dir()]
    if not kinds:
        return
    connection.execute("PRAGMA synchronous = FULL")  # it is on the disk before its file is removed
    users, n_taken = defaultdict(list), 0
    for path in sorted(folder.parent.glob("*/*/units-*.txt")):
        for name in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            users[name].append(artifact_name(path.parent))
    files = list(_earlier(folder))
    for first in range(0, len(files), BATCH):
        paths = files[first : first + BATCH]
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for path in paths:
                n_taken += _take_in_file(folder, connection, path, users)
        for path in paths:
            path.unlink(missing_ok=True)
    for kind in kinds:
        for place in [*kind.iterdir(), kind]:
            with suppress(OSError):  # one that is not empty
                place.rmdir()
    logger.info("%d records of units of an earlier cltdb are now in %s", n_taken, folder / FILE)


def _take_in_file(folder, connection, path, users):
    """Takes one file in; False where it is damaged, and then it is set aside."""
    kind, group, name = path.relative_to(folder).with_suffix("").parts
    unit = f"{kind}/{group}/{name}"
    try:
        record = integrity.read_sealed(path)
        if record.pop("unit", None) != unit:
            raise ValueError("another content than was written")
    except (OSError, ValueError) as error:
        logger.warning("%s is damaged (%s); it is made again", path, error)
        os.replace(path, path.with_name(path.name + DAMAGED))
        return False
    connection.execute(PUT, _row(kind, f"{group}/{name}", record))
    for artifact in set(users[unit]):
        connection.execute(USE, (_artifact_id(connection, artifact), kind, f"{group}/{name}"))
    return True


# What is there, and what of it is wanted. `folder` is that of all units.


def count(folder, kind, group):
    """How many records of a group (the part of their keys before the slash) are there, as far as names tell."""
    n = len(list((folder / kind / group).glob("[!.]*.json"))) if kind in EARLIER else 0
    with _explained(folder / FILE):
        connection = _reading(folder / FILE)
        if connection is not None:
            with closing(connection):
                query = "SELECT count(*) FROM units WHERE kind = ? AND key >= ? AND key < ?"  # 0 follows the slash
                n += connection.execute(query, (kind, f"{group}/", f"{group}0")).fetchone()[0]
    return n


@contextmanager
def _changing(folder):
    """A connection within a transaction; None where there are no records."""
    path = folder / FILE
    if not path.exists() and not any(_earlier(folder)):
        yield None
        return
    with _explained(path), closing(_connect(path)) as connection:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
        connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _looking(folder):
    """A connection to read by; None where there are no records. Those of an earlier cltdb are taken in where one may write."""
    if os.access(folder, os.W_OK):
        with _changing(folder) as connection:
            yield connection
        return
    with _explained(folder / FILE):
        connection = _reading(folder / FILE)
        with nullcontext() if connection is None else closing(connection):
            yield connection


def forget(folder, artifacts, *, keeping):
    """Removes the records that artifacts use, but for the kinds in `keeping`, which they go on to use."""
    with _changing(folder) as connection:
        if connection is not None:
            marks = ", ".join("?" * len(keeping))
            connection.execute("CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY)")
            for artifact in artifacts:
                connection.execute(
                    f"INSERT OR IGNORE INTO gone SELECT id FROM units WHERE kind NOT IN ({marks}) AND id IN"
                    " (SELECT unit_id FROM uses WHERE artifact_id = (SELECT id FROM artifacts WHERE name = ?))",
                    (*keeping, artifact),
                )
            connection.execute("DELETE FROM uses WHERE unit_id IN (SELECT id FROM gone)")
            connection.execute("DELETE FROM units WHERE id IN (SELECT id FROM gone)")


def unused(folder, *, lives, delete):
    """{kind: number} of the records that no living artifact uses; removed if `delete`. lives(name): whether an artifact does."""
    with _changing(folder) if delete else _looking(folder) as connection:
        if connection is None:
            return {}
        connection.execute("CREATE TEMP TABLE used (id INTEGER PRIMARY KEY)")
        dead = []
        for id, name in connection.execute("SELECT id, name FROM artifacts").fetchall():
            if lives(name):
                connection.execute("INSERT OR IGNORE INTO used SELECT unit_id FROM uses WHERE artifact_id = ?", (id,))
            else:
                dead.append((id,))
        no_use = "id NOT IN (SELECT id FROM used)"
        found = dict(connection.execute(f"SELECT kind, count(*) FROM units WHERE {no_use} GROUP BY kind ORDER BY kind"))
        if delete:
            connection.execute(f"DELETE FROM units WHERE {no_use}")
            connection.executemany("DELETE FROM uses WHERE artifact_id = ?", dead)
            connection.executemany("DELETE FROM artifacts WHERE id = ?", dead)
        return found


def faults(folder):
    """A DataError for each record that is not what was written, or one for a damaged file; every byte is read."""
    path = folder / FILE
    try:
        with _explained(path):
            connection = _reading(path)
            if connection is None:
                return
            with closing(connection):
                [(first,), *_] = connection.execute("PRAGMA integrity_check(1)").fetchall()
                if first != "ok":
                    raise _damage(path, " ".join(first.split()))
                damaged = "SELECT kind, key FROM units WHERE NOT is_whole(kind, key, record, digest) ORDER BY kind, key"
                rows = connection.execute(damaged).fetchall()
    except DataError as error:
        yield error
        return
    for kind, key in rows:
        yield DataError(
            f"{path} ({kind}/{key})",
            found="a damaged record",
            expected="what was written",
            do="leave it: it is made again when it is next wanted",
        )
