"""Whether finished files still are what their stage wrote.

A manifest lists every file of its artifact with size and sha256, and is sealed with a digest of its own, as records are. `checked`
compares a file when it is first used in a process; afterwards its size and time of change stand for its content, for files above
`LARGE_BYTES` also in later processes. `require_whole` looks at size and time alone, and reads what changed since it was known. Both
raise one error that names the file, its stage and the command that makes it anew. Large files whose reader checks them block by
block each time (`checks_itself` in the manifest) are left to it. Artifacts of an earlier cltdb, without hashes, are taken as they are.
"""

import contextlib
import json
import os
import re
from pathlib import Path

from cltdb.errors import DataError

MANIFEST = "manifest.json"
IMPORTS, INTERVENTIONS, MATCHES = "imports", "interventions", "matches"
"""Beside the folders of stages: artifacts made of other tools' files and of single interventions, which no run refers to and `gc` leaves
alone."""
LARGE_BYTES = 2**30
"""Reading more than this takes seconds, which a command such as `cltdb intervene` should not take each time."""
SEAL = "digest"

_seen = {}  # path: (size, mtime_ns) of what this process has compared with its hash
_manifests = {}  # path of a manifest: ((size, mtime_ns), content)


# Sealed JSON: manifests and records.


def sealed(value):
    """The JSON object with a digest of its other fields."""
    rest = {name: part for name, part in value.items() if name != SEAL}
    return {**rest, SEAL: _digest(rest)}


def _digest(value):
    import hashlib  # with OpenSSL: a twentieth of the start of a command that asks, which needs neither

    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode(errors="replace")).hexdigest()[:32]


def is_sealed(value):
    """Whether the digest of a JSON object is that of its other fields."""
    return sealed(value) == value


def read_sealed(path):
    """The JSON object in a file, without its digest; ValueError or OSError where it cannot be read or is not what was written.

    Objects without a digest, of an earlier cltdb, are taken as they are.
    """
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    digest = value.pop(SEAL, None)
    if digest is not None and digest != _digest(value):
        raise ValueError("another content than was written")
    return value


def read_manifest(directory):
    """The manifest of a finished artifact; DataError where it is damaged."""
    path = Path(directory).absolute() / MANIFEST
    try:
        facts = _facts(path)
        known = _manifests.get(str(path))
        if known is None or known[0] != facts:
            manifest = read_sealed(path)
            if not isinstance(manifest.get("files", {}), dict):
                raise ValueError("no list of files")
            known = _manifests[str(path)] = facts, manifest
        return known[1]
    except (OSError, ValueError) as error:
        raise _damage(path, directory, found=f"a manifest that is damaged ({error})") from error


# Files against their manifest.


def describe(directory, *, known=None):
    """{name: its size and hash} of every file of an artifact that is finished but for its manifest. `known`: {name: sha256} of files
    that their reader checks by itself, which are not read here."""
    directory, known, files = Path(directory), known or {}, {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != MANIFEST:
            own = {"checks_itself": True} if name in known else {}
            files[name] = {"bytes": path.stat().st_size, "sha256": known.get(name) or _sha256(path), **own}
    return files


def checked(path):
    """`path`, whose content is what its stage wrote; DataError where it is not. A file of no finished artifact is left unchecked."""
    directory = artifact_of(path)
    files = None if directory is None else read_manifest(directory).get("files")
    if files is None:
        return path
    name = Path(path).absolute().relative_to(directory).as_posix()
    facts = files.get(name)
    if facts is None:
        raise _damage(path, directory, found="a file that its stage did not write", expected="the files in its manifest alone")
    large = facts["bytes"] > LARGE_BYTES
    if fault := _fault(directory / name, directory, facts, seen=_seen_before(directory).get(name) if large else None):
        raise fault
    if large:
        _remember(directory)
    return path


def check_content(directory, *, also_shards=False):
    """`checked` for all files of an artifact; for those that their reader checks only where `also_shards` asks for it."""
    for name, facts in read_manifest(directory).get("files", {}).items():
        if not facts.get("checks_itself"):
            checked(Path(directory) / name)
        elif also_shards and (fault := _fault(Path(directory) / name, directory, facts, seen=None, thorough=True)):
            raise fault


def artifact_of(path):
    """The directory of the finished artifact that a file belongs to, or None."""
    for directory in list(Path(path).absolute().parents)[:4]:
        if (directory / MANIFEST).is_file() and not directory.name.endswith(".partial"):
            if re.fullmatch("[0-9a-f]{16}", directory.name):
                return directory
            with contextlib.suppress(OSError, ValueError):  # a file of that name of another program
                if {"stage", "key", "files"} <= read_sealed(directory / MANIFEST).keys():
                    return directory
    return None


def require_whole(directory):
    """DataError where a file of a finished artifact is gone or was changed, as far as sizes and times tell."""
    for fault in faults(directory):
        raise fault
    _remember(directory)


def gone(directory):
    """A DataError for each file of a finished artifact that is gone or of another size: no content is read but the manifest's."""
    try:
        files = read_manifest(directory).get("files", {})
    except DataError as error:
        yield error
        return
    for name, facts in files.items():
        if fault := _fault(Path(directory) / name, directory, facts, seen=None, reads=False):
            yield fault


def faults(directory, *, thorough=False):
    """A DataError for each file of a finished artifact that is not as its stage wrote it. thorough: all content is read; without,
    only of files whose time of change is not known."""
    directory = Path(directory).absolute()
    try:
        files = read_manifest(directory).get("files", {})
    except DataError as error:
        yield error
        return
    before = {} if thorough else _seen_before(directory)
    for name, facts in files.items():
        fault = _fault(directory / name, directory, facts, seen=before.get(name), thorough=thorough)
        if fault:
            yield fault
    if thorough and files:
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if path.is_file() and name not in files and name != MANIFEST:
                yield _damage(path, directory, found="a file that its stage did not write", expected="the manifest's files alone")


def _fault(path, directory, facts, *, seen, thorough=False, reads=True):
    """A DataError where the file is not as its manifest says, else None. seen: [size, mtime_ns] that stand for its content. reads: whether
    more than its size is compared."""
    expected = f"{facts['bytes']:,} bytes with sha256 {facts['sha256'][:12]}…"
    try:
        now = _facts(path)
        if now[0] != facts["bytes"]:
            return _damage(path, directory, found=f"{now[0]:,} bytes", expected=expected)
        if not reads or not thorough and (facts.get("checks_itself") or now in (_seen.get(str(path)), tuple(seen or ()))):
            return None
        sha256 = _sha256(path)
    except FileNotFoundError:
        return _damage(path, directory, found="no such file", expected=expected)
    except OSError as error:
        return _damage(path, directory, found=f"a file that cannot be read ({error})", expected=expected)
    if sha256 != facts["sha256"]:
        return _damage(path, directory, found=f"other bytes, with sha256 {sha256[:12]}…", expected=expected)
    _seen[str(path)] = now
    return None


def _damage(path, directory, *, found, expected="a file as its stage wrote it"):
    """The error that names the file, its stage and the command that makes it anew."""
    stage = Path(directory).parent.name
    return DataError(f"{path} (stage {stage})", found=found, expected=expected, do=remedy(directory))


def remedy(directory):
    """What makes a damaged artifact anew."""
    directory = Path(directory)
    stage = directory.parent.name
    if again := {IMPORTS: "`cltdb import` the graph again", INTERVENTIONS: "make it again", MATCHES: "compare them again"}.get(
        stage
    ):
        return f"restore it, or remove {directory} and {again}"
    experiment = None
    with contextlib.suppress(OSError, ValueError):
        experiment = read_sealed(directory / MANIFEST).get("experiment")
    spec = f", with the spec of experiment {experiment}," if experiment else ""
    return f"`cltdb run SPEC --force {stage}`{spec} makes it anew"


def _sha256(path):
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _facts(path):
    """(size, mtime_ns) of a file."""
    facts = Path(path).stat()
    return facts.st_size, facts.st_mtime_ns


# What stands for content that was compared once: sizes and times.


def believe(directory):
    """Takes the files of a finished artifact, which this process or the one that started it has just written or compared, as known."""
    with contextlib.suppress(OSError, DataError):
        for name in read_manifest(directory).get("files", {}):
            path = Path(directory).absolute() / name
            _seen[str(path)] = _facts(path)


def remember_written(directory):
    """Notes sizes and times of the files of an artifact that was just finished."""
    believe(directory)
    _remember(directory)


def seen_file(directory):
    """Where sizes and times are noted for later processes, beside the artifact."""
    return Path(directory).with_name(f".{Path(directory).name}.seen")


def _seen_before(directory):
    try:
        noted = json.loads(seen_file(directory).read_text())
        return noted if isinstance(noted, dict) else {}
    except (OSError, ValueError):
        return {}


def _remember(directory):
    """Notes what this process knows of the artifact's files, where there is something new and the folder can be written to."""
    directory, noted = Path(directory).absolute(), _seen_before(directory)
    names = read_manifest(directory).get("files", {})
    new = {name: list(_seen[str(directory / name)]) for name in names if str(directory / name) in _seen}
    if new.items() <= noted.items():
        return
    place = seen_file(directory)
    aside = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        aside.write_text(json.dumps(noted | new))
        os.replace(aside, place)
