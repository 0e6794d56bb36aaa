"""Every path cltdb writes, and the two rules for writing: aside and renamed in place, the manifest last.

An artifact is `<workspace>/<stage>/<key>/`. While it is made it is `<key>.partial`, which survives a kill so that finished units
are found again; `finish_artifact` writes `manifest.json` into it and renames the directory. A manifest means complete, and holds the
hash of every file (`integrity`). A folder is removed by renaming it first, so that a kill leaves no part of it under its name.
"""

import errno
import glob
import itertools
import json
import logging
import os
import shutil
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from cltdb.engine import integrity
from cltdb.engine.integrity import IMPORTS, INTERVENTIONS, MANIFEST, MATCHES  # noqa: F401
from cltdb.engine.locks import held
from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
PROJECT_FILE = "cltdb.yaml"
DAMAGED = ".damaged"
"""After the name of a record that was set aside."""
RUN_FIELDS = {"run_id", "experiment", "spec_hash", "stage", "key", "status", "started_at"}
EXPERIMENT_FIELDS = {"experiment", "spec_hash", "spec_yaml"}
PARQUET_OPTIONS = {"compression": "zstd", "write_page_checksum": True}
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_DISK_IN_SQLITE = {
    "SQLITE_FULL",
    "SQLITE_IOERR_WRITE",
    "SQLITE_IOERR_TRUNCATE",
    "SQLITE_IOERR_SHMSIZE",
    "SQLITE_IOERR_SHMMAP",
}
MOVE = "move `workspace` in cltdb.yaml to a larger disk"
ELSEWHERE = "write to a larger disk with -o"
"""What to do where a disk is full: of the workspace, and of what a user has written elsewhere."""


@contextmanager
def writing(path, *, do=MOVE):
    """A path to write to; renamed to `path` when the block ends well, removed when it does not. do: as of `explain_full_disk`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explain_full_disk(path, do=do):
            yield aside
            with open(aside, "rb") as written:
                os.fsync(written.fileno())
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def explain_full_disk(path, *, do=MOVE):
    """Turns a full disk, whichever library met it, into a `CltdbError` that names the file and the space left; `do`: beside
    freeing space."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CltdbError) or not is_full_disk(error):
            raise
        parent = Path(path).parent
        free = shutil.disk_usage(parent).free / 1e6 if parent.exists() else 0
        raise CltdbError(
            str(path),
            found=f"no room to write ({free:,.0f} MB free on the disk)",
            expected="enough disk space or file size limit",
            do=f"free space, or {do}, and run again" + ": what is finished is kept" * (do != ELSEWHERE),
        ) from error


def is_full_disk(error):
    """True where an error, or one that led to it, says that there is no room to write."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return True
        if getattr(error, "sqlite_errorname", None) in FULL_DISK_IN_SQLITE:
            return True
        if "No space left on device" in str(error) or "File too large" in str(error):  # safetensors, DuckDB: no errno
            return True
        error = error.__cause__ or error.__context__
    return False


def digest(value):
    """16 hexadecimal digits of a JSON value."""
    import hashlib  # OpenSSL, as of integrity.py

    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def write_json(path, value, *, indent=1, do=MOVE):
    """Writes `value` as JSON, aside and renamed in place; without indent on one line. do: as of `explain_full_disk`."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    with writing(path, do=do) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_json(path):
    """The value in a JSON file that cltdb wrote."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CltdbError(
            str(path),
            found=f"a file that cannot be read ({error})",
            expected="JSON as cltdb wrote it",
            do="remove the artifact it belongs to and run again",
        ) from error


def write_parquet(path, frame):
    """Writes a pyarrow table or polars frame as zstd Parquet, aside and renamed in place."""
    import pyarrow.parquet as pq

    table = frame.to_arrow() if hasattr(frame, "to_arrow") else frame
    with writing(path) as aside:
        pq.write_table(table, aside, **PARQUET_OPTIONS)


def write_parquet_groups(path, tables):
    """Writes pyarrow tables, at least one, as row groups of one Parquet file, one in memory at a time, aside and renamed in place."""
    import pyarrow.parquet as pq

    tables = iter(tables)
    first = next(tables)
    with writing(path) as aside, pq.ParquetWriter(aside, first.schema, **PARQUET_OPTIONS) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def read_parquet(*paths):
    """The polars frame of one or several Parquet files; a path is no glob, whatever brackets are in it."""
    import polars as pl

    return pl.read_parquet([Path(path) for path in paths], glob=False)


def write_safetensors(path, tensors, metadata=None):
    """Writes named tensors or `tensor_files.Pieces`, aside and renamed in place; metadata values are strings."""
    from cltdb.tensor_files import write_tensors

    with writing(path) as aside:
        write_tensors(aside, tensors, metadata)


def remove_folder(path):
    """Removes a folder, whole as far as its name goes: killed halfway, the rest has another name (`Workspace.leftovers`)."""
    path = Path(path)
    if path.exists():
        aside = path.with_name(f".{path.name}.{os.getpid()}.removed")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)
        shutil.rmtree(aside)


def _read_record(path, fields):
    """The content of a record; OSError or ValueError where it is damaged."""
    record = integrity.read_sealed(path)
    if missing := sorted(fields - record.keys()):
        raise ValueError(f"no {missing[0]}")
    return record


class Workspace:
    """The folder that holds all artifacts and run records of a project."""

    def __init__(self, root):
        self.root = Path(root)

    def is_read_only(self):
        """Whether it is there and this user may not write to it."""
        return self.root.is_dir() and not os.access(self.root, os.W_OK)

    def artifact(self, stage, key):
        return self.root / stage / key

    def partial(self, stage, key):
        return self.root / stage / f"{key}.partial"

    def is_finished(self, stage, key):
        return (self.artifact(stage, key) / MANIFEST).is_file()

    def manifest(self, stage, key):
        return integrity.read_manifest(self.artifact(stage, key))

    def artifacts(self):
        """(stage, key, directory) of every finished artifact, sorted."""
        return sorted(
            (path.parent.parent.name, path.parent.name, path.parent)
            for path in self.root.glob(f"*/*/{MANIFEST}")
            if not path.parent.name.endswith(".partial")
        )

    def folders(self):
        """(stage, key, directory) of every artifact that is not in the making, also of those whose manifest is lost, sorted."""
        return sorted(
            (path.parent.name, path.name, path)
            for path in self.root.glob("*/*")
            if path.is_dir() and not path.name.startswith(".") and not path.name.endswith(".partial")
        )

    def unfinished(self, stage):
        """(key, directory) of every unfinished artifact of a stage, sorted."""
        return [(path.name.removesuffix(".partial"), path) for path in sorted(self.root.glob(f"{stage}/*.partial"))]

    def claim(self, stage, key):
        """Holds, as a context, an artifact in the making against other processes, also of other experiments."""
        refused = CltdbError(
            f"stage {stage}",
            found="another cltdb process that is making the same artifact",
            expected="one process per artifact",
            do="wait for it to end and run again",
        )
        return held(self.root / stage / f".{key}.lock", refused=refused)

    def finish_artifact(self, stage, key, manifest, *, known_hashes=None):
        """Writes the manifest, with the hash of every file, and renames the partial directory in place. What stands there without a
        manifest, which a kill or a loss left, makes room. `known_hashes`: {name: sha256} of files whose reader checks them."""
        partial, target = self.partial(stage, key), self.artifact(stage, key)
        for left in partial.rglob(".*.tmp"):  # of killed writers
            left.unlink(missing_ok=True)
        manifest = {"stage": stage, "key": key, **manifest, "files": integrity.describe(partial, known=known_hashes)}
        write_json(partial / MANIFEST, integrity.sealed(manifest))
        remove_folder(target)
        os.replace(partial, target)
        integrity.remember_written(target)

    def ask_again(self, stage, key):
        """Notes in the manifest of a finished artifact that it was asked for now: of several that hold the same rows in other values the database
        then takes this one."""
        with self.claim(stage, key):
            manifest = self.manifest(stage, key) | {"asked_at": datetime.now(UTC).isoformat()}
            write_json(self.artifact(stage, key) / MANIFEST, integrity.sealed(manifest))

    def store(self, kind, key, frames, *, part, about):
        """The finished artifact of what a user made, written where it is not there yet: `frames` by table, each one part."""
        with self.claim(kind, key):
            if not self.is_finished(kind, key):
                self.discard(kind, key)
                for table, frame in frames.items():
                    write_parquet(self.partial(kind, key) / "tables" / table / f"{part}.parquet", frame)
                started_at = datetime.now(UTC).isoformat()
                self.finish_artifact(kind, key, {"stage": kind, "key": key, "started_at": started_at, **about})
        return self.artifact(kind, key)

    def discard(self, stage, key):
        """Removes an artifact, what is unfinished of it first, so that a kill in between leaves it whole."""
        remove_folder(self.partial(stage, key))
        remove_folder(self.artifact(stage, key))
        integrity.seen_file(self.artifact(stage, key)).unlink(missing_ok=True)
        for left in self.leftovers(stage, key):
            shutil.rmtree(left, ignore_errors=True)

    def leftovers(self, stage="*", key="*"):
        """Folders whose removal was killed halfway, sorted."""
        names = (key, f"{key}.partial") if key != "*" else ("*",)
        return sorted(path for name in names for path in self.root.glob(f"{stage}/.{name}.*.removed"))

    # Run records: one JSON file per stage execution, the source of the table `stage_runs`.

    def run_record_path(self, run_id):
        return self.root / "runs" / f"{run_id}.json"

    def report_path(self, run_id):
        """Where a stage that runs says how far it is (`log.reported`)."""
        return self.root / "runs" / f"{run_id}.progress"

    def save_run(self, record):
        write_json(self.run_record_path(record["run_id"]), integrity.sealed(record))

    def run_records(self):
        return self._records("runs", RUN_FIELDS)

    def runs_of(self, stage, key):
        """The run records of one artifact, which their names tell."""
        found = self._records("runs", RUN_FIELDS, f"*-{stage}-{key[:8]}-*")
        return [record for record in found if (record["stage"], record["key"]) == (stage, key)]

    def runs_of_experiment(self, experiment, stage):
        """The run records of a stage of one experiment."""
        found = self._records("runs", RUN_FIELDS, f"{glob.escape(experiment)}-*{stage}-*")
        return [record for record in found if (record["experiment"], record["stage"]) == (experiment, stage)]

    def save_experiment(self, experiment, spec_hash, record):
        """Keeps the first record of a spec, with the sweep it is a point of once there is one."""
        path = self.root / "experiments" / f"{experiment}-{spec_hash}.json"
        known = self._record(path, EXPERIMENT_FIELDS) if path.exists() else None
        if known is None or known.get("sweep") is None and record.get("sweep") is not None:
            created = {"created_at": known["created_at"]} if known and "created_at" in known else {}
            write_json(path, integrity.sealed(record | created))

    def experiment_records(self):
        return self._records("experiments", EXPERIMENT_FIELDS)

    def damaged_records(self):
        """Records that were set aside, sorted."""
        return sorted(path for folder in ("runs", "experiments") for path in (self.root / folder).glob(f"*.json{DAMAGED}"))

    def record_faults(self):
        """(path, what is wrong with it) of damaged records, which stay where they are."""
        return [(path, str(found)) for _, path, found in self._looked_at() if isinstance(found, Exception)]

    def whole_records(self):
        """{"experiments": records, "stage_runs": records}; damaged ones stay where they are and are left out."""
        whole = {"experiments": [], "stage_runs": []}
        for name, _, found in self._looked_at():
            if not isinstance(found, Exception):
                whole[name].append(found)
        return whole

    def _looked_at(self):
        """(name of its table, path, the record or the error that it cannot be read for) of every record."""
        kinds = (("stage_runs", "runs", RUN_FIELDS), ("experiments", "experiments", EXPERIMENT_FIELDS))
        for name, folder, fields in kinds:
            for path in sorted((self.root / folder).glob("*.json")):
                try:
                    yield name, path, _read_record(path, fields)
                except (OSError, ValueError) as error:
                    yield name, path, error

    def _records(self, folder, fields, name="*"):
        records = (self._record(path, fields) for path in sorted((self.root / folder).glob(f"{name}.json")))
        return [record for record in records if record is not None]

    def _record(self, path, fields):
        """A record; None where it is damaged, and then it is set aside with one line that says so: no command waits for it."""
        try:
            return _read_record(path, fields)
        except (OSError, ValueError) as error:
            aside = path.with_name(path.name + DAMAGED)
            with suppress(OSError):
                os.replace(path, aside)
            again = "a run of its spec writes a new one"
            logger.warning("%s is damaged (%s) and was set aside as %s; %s", path, error, aside.name, again)
            return None
