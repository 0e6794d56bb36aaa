"""Folders, on this machine or in object storage, with the same few verbs.

A place is a path or a URI that pyarrow knows (`s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`). Files are written to a local path
first; on this machine that is renamed in place, elsewhere it is uploaded, so a killed writer leaves nothing that looks whole: what
marks a remote file as whole is the file that is written after it (a shard's index, the cache's summary).
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

from pyarrow import ArrowException, fs

from cltdb.engine.workspace import explain_full_disk, writing
from cltdb.errors import DataError

UPLOAD_BYTES = 16 << 20
SAFE = "/:@!$&'()+,;=~"
"""Characters of a URI that need no percent encoding."""


def is_uri(place):
    """True of `scheme://…`."""
    return "://" in str(place)


def filesystem_of(place):
    """(pyarrow filesystem, path in it) of a URI; DataError where pyarrow does not know it or cannot reach it."""
    try:
        return fs.FileSystem.from_uri(str(place))
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(
            str(place),
            found=str(error).split("\n")[0],
            expected="a URI that pyarrow's filesystems open, such as s3://bucket/folder, gs://bucket/folder or file:///folder",
            do="mend it; credentials come from the environment, as pyarrow.fs describes",
        ) from error


def matching_uris(pattern):
    """URIs of the files that match a URI with `*`, `?` (within a name) and `**` (any folders). Any other character stands for itself, percent
    encoded or not; the URIs found are encoded."""
    pattern, query = (re.split(r"(\?\w+=.*)$", pattern) + [""])[:2]
    parts = pattern.split("/")
    fixed = next((number for number, part in enumerate(parts) if set("*?") & set(part)), len(parts) - 1)
    scheme = pattern.partition("://")[0]
    filesystem, base = filesystem_of(_encoded("/".join(parts[:fixed])) + query)
    expression = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "(?:(?:%[0-9A-F]{2})+|[^/%])"}
    wanted = "".join(
        expression.get(piece, re.escape(_encoded(piece))) for piece in re.split(r"(\*\*/|\*\*|\*|\?)", "/".join(parts[fixed:]))
    )
    found = filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    names = {info.path: info.path.removeprefix(base).lstrip("/") for info in found if info.is_file}
    return sorted(
        f"{scheme}://{quote(path, SAFE)}{query}" for path, name in names.items() if re.fullmatch(wanted, quote(name, SAFE))
    )


def _encoded(uri):
    """A URI or a part of one with every character percent encoded that has to be."""
    return quote(unquote(uri), SAFE)


def uri_facts(uri):
    """[URI, size, time of the last change] of a file: what stands for its content where reading it all would be slow."""
    filesystem, path = filesystem_of(uri)
    info = filesystem.get_file_info(path)
    return [uri, info.size, info.mtime_ns]


def open_uri(uri):
    """A file to read."""
    filesystem, path = filesystem_of(uri)
    return filesystem.open_input_file(path)


def damaged_shards(directory):
    """A DataError for each file of a cache in a folder of its own (`activations.storage`) that is not as it was written."""
    summary = json.loads((Path(directory) / "cache.json").read_text(encoding="utf-8"))
    if "location" not in summary:
        return
    folder, wanted = Folder(summary["location"]), {"codec.safetensors": summary["scales_sha256"]}
    for shard in summary["shards"]:
        wanted |= {shard["file"]: shard["sha256"], f"{shard['file']}.index.json": shard["index_sha256"]}
    for name, sha256 in wanted.items():
        try:
            with folder.open(name) as file:
                digest = hashlib.sha256()
                while piece := file.read(UPLOAD_BYTES):
                    digest.update(piece)
            found = None if digest.hexdigest() == sha256 else f"other bytes, with sha256 {digest.hexdigest()[:12]}…"
        except FileNotFoundError:
            found = "no such file"
        if found:
            do = "restore it, or remove this file, run again with --force activations, and only it is written anew"
            yield DataError(folder.place_of(name), found=found, expected=f"sha256 {sha256[:12]}…", do=do)


class Folder:
    """The files of one folder by name."""

    def __init__(self, place, *, filesystem=None):
        """place: a path or a URI, or a path in `filesystem`, a pyarrow one; or a Folder, which this becomes equal to."""
        if isinstance(place, Folder):
            self.__dict__.update(place.__dict__)
            return
        self.shown, path = str(place).rstrip("/"), str(place)
        if filesystem is None:
            filesystem, path = filesystem_of(place) if is_uri(place) else (fs.LocalFileSystem(), str(Path(place).absolute()))
        self.filesystem, self.path = filesystem, path.rstrip("/")
        self.is_local = isinstance(filesystem, fs.LocalFileSystem)

    def place_of(self, name):
        """The file's path or URI, as messages name it."""
        return f"{self.shown}/{name}"

    def has(self, name):
        return self._reach(name, self.filesystem.get_file_info, f"{self.path}/{name}").is_file

    def names(self):
        """Sorted names of the files here."""
        found = self._reach("", self.filesystem.get_file_info, fs.FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.is_file)

    def open(self, name):
        """A file to read anywhere in, also from several threads (`read_at`); FileNotFoundError where there is none."""
        return self._reach(name, self.filesystem.open_input_file, f"{self.path}/{name}")

    def read(self, name):
        """All bytes of a file."""
        with self.open(name) as file:
            return self._reach(name, file.read)

    @contextlib.contextmanager
    def writing(self, name):
        """A local path to write to, which becomes the file when the block ends well."""
        if self.is_local:
            with writing(Path(self.path) / name) as aside:
                yield aside
            return
        with tempfile.TemporaryDirectory(prefix="cltdb-") as scratch:
            with writing(Path(scratch) / name) as aside:
                yield aside
            self._reach(name, self._upload, Path(scratch) / name, name)

    def write(self, name, data):
        """Writes bytes as a file."""
        with self.writing(name) as aside:
            aside.write_bytes(data)

    def write_first(self, name, data):
        """Writes bytes as a file unless another process did so first; in object storage the last writer wins."""
        if not self.is_local:
            self.write(name, data)
            return
        path = Path(self.path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{name}.{os.getpid()}.tmp")
        try:
            with explain_full_disk(path):
                aside.write_bytes(data)
                os.link(aside, path)  # unlike a renaming, fails where the file exists
        except FileExistsError:
            return
        finally:
            aside.unlink(missing_ok=True)

    def remove_leftovers(self, name):
        """Removes what killed writers of a file left beside it."""
        if self.is_local:
            for path in Path(self.path).glob(f".{name}.*.tmp"):
                path.unlink(missing_ok=True)

    def _upload(self, source, name):
        self.filesystem.create_dir(self.path, recursive=True)
        with open(source, "rb") as file, self.filesystem.open_output_stream(f"{self.path}/{name}") as out:
            shutil.copyfileobj(file, out, UPLOAD_BYTES)

    def _reach(self, name, function, *arguments):
        """function(*arguments); what a remote store refuses is one clear error."""
        try:
            return function(*arguments)
        except FileNotFoundError:
            raise
        except OSError as error:
            if self.is_local:
                raise
            raise DataError(
                self.place_of(name),
                found=str(error).split("\n")[0],
                expected="object storage that can be reached, read and written",
                do="check the address, the credentials and the network, and run again: what is finished is kept",
            ) from error
