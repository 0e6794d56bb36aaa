"""A log of events as a file: JSON lines to which is appended under a lock, each time through to the disk.

A line is there once its line feed is: what a killed writer left behind the last one is passed over by readers and taken out by the next
writer. Times of one log ascend strictly, so that the order of lines is that of time, also among the events of several logs.
"""

import fcntl
import getpass
import hashlib
import json
import os
import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cltdb.annotations.operations import FEATURES, GRAPH, checked, checked_event, members
from cltdb.engine.locks import took
from cltdb.engine.workspace import explain_full_disk
from cltdb.errors import CltdbError, shown

FOLDER = "annotations"
FOLDER_OF = {GRAPH: "graphs", FEATURES: "features"}
PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
MAX_BATCH = 1000


class Log(NamedTuple):
    """The log of one graph, or of the features of one dictionary. kind: GRAPH or FEATURES; subject: the graph_id or dict_id."""

    workspace: Path
    kind: str
    subject: str

    @property
    def path(self):
        """An id that is no plain name is hashed; the tilde, which no plain name has, keeps the two kinds of names apart."""
        name = self.subject if PLAIN.fullmatch(self.subject) else f"~{hashlib.sha256(_bytes(self.subject)).hexdigest()[:32]}"
        return Path(self.workspace) / FOLDER / FOLDER_OF[self.kind] / f"{name}.jsonl"

    @property
    def revision(self):
        """A number that grows with every event; costs one look at the file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def events(self):
        """The events, in their order. Lines that are damaged are left out: `faults` tells of them."""
        return read(self.path)[0]

    def append(self, operations, *, author=None, is_known=None):
        """Appends operations, dicts with `op` and its fields, and returns their events. One with the `id` of an event that is there, of a
        browser that tries again, is not appended anew. is_known(member): whether there is such a node, or (layer, feature)."""
        operations = [self._checked(operation, is_known) for operation in operations]
        if len(operations) > MAX_BATCH:
            raise CltdbError(
                "annotations", found=f"{len(operations):,} at once", expected=f"at most {MAX_BATCH:,}", do="send fewer"
            )
        author = (author or _user())[:100]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with explain_full_disk(self.path), open(self.path, "a+b", buffering=0) as file:
            took(file, fcntl.LOCK_EX, self.path)
            _cut_torn_line(file)
            there = {event["id"]: event for event in self.events()}
            last = max((event["at"] for event in there.values()), default="")
            events = []
            for event_id, operation in operations:
                if event_id not in there:
                    last = _after(last)
                    there[event_id] = {"id": event_id, "at": last, "author": author, self.kind: self.subject, **operation}
                    events.append(there[event_id])
            _write(file, events)
        if is_new:
            _sync_folder(self.path.parent)
        return [there[event_id] for event_id, _ in operations]

    def _checked(self, operation, is_known):
        """(id of the event, the operation checked)."""
        if not isinstance(operation, dict):
            raise CltdbError(
                "annotation", found=shown(operation), expected="an operation with its fields", do="load the page again"
            )
        event_id = operation.get("id") or uuid.uuid4().hex
        if not isinstance(event_id, str) or not re.fullmatch(r"[A-Za-z0-9_.:-]{1,80}", event_id):
            raise CltdbError("annotation id", found=shown(event_id), expected="letters, digits, _.:-", do="load the page again")
        operation = checked(self.kind, {name: value for name, value in operation.items() if name != "id"})
        unknown = [member for member in members(operation) if is_known and not is_known(member)]
        if unknown:
            found = f"{unknown[0]}, which {'the graph' if self.kind == GRAPH else 'the dictionary'} does not have"
            raise CltdbError(
                f"annotation {operation['op']}", found=found, expected="a node or feature of it", do="load the page again"
            )
        return event_id, operation


def read(path):
    """(events of the log at `path`, in their order, what is wrong with its other lines)."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return [], []
    events, faults = [], []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            events.append(checked_event(json.loads(line.decode("utf-8"))))
        except (ValueError, RecursionError, CltdbError) as error:
            faults.append(f"{path}, line {number}: {error}")
    return events, faults


def all_logs(workspace):
    """The files of all logs, sorted."""
    return sorted(path for name in FOLDER_OF.values() for path in (Path(workspace) / FOLDER / name).glob("*.jsonl"))


def all_events(workspace):
    """(events of all logs, what is wrong with other lines)."""
    read_logs = [read(path) for path in all_logs(workspace)]
    return [event for events, _ in read_logs for event in events], [fault for _, faults in read_logs for fault in faults]


def _cut_torn_line(file):
    """Takes out what a killed writer left behind the last line feed."""
    size = os.fstat(file.fileno()).st_size
    content = os.pread(file.fileno(), size, 0)
    whole = content.rfind(b"\n") + 1
    if whole < size:
        os.ftruncate(file.fileno(), whole)


def _write(file, events):
    """Appends the lines of events: all of them or, where the disk is full, none."""
    lines = b"".join(json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n" for event in events)
    size = os.fstat(file.fileno()).st_size
    try:
        while lines:
            lines = lines[file.write(lines) :]
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def _sync_folder(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _after(last):
    """The present as ISO 8601 text, after the time `last`."""
    now = datetime.now(UTC)
    if last:
        now = max(now, datetime.fromisoformat(last) + timedelta(microseconds=1))
    return now.isoformat(timespec="microseconds")


def _user():
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def _bytes(text):
    return text.encode("utf-8", "surrogatepass")
