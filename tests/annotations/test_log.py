"""The file of a log: appended by several processes, killed between, damaged."""

import json
import os
import subprocess
import sys

import pytest
from command_line import ROOT

from cltdb.annotations.log import Log, all_events, all_logs, read
from cltdb.annotations.operations import GRAPH
from cltdb.annotations.state import graph_state

PIN = {"op": "pin", "nodes": [1]}
WRITER = """
import sys
from cltdb.annotations.log import Log
log = Log(sys.argv[1], "graph_id", "g")
for i in range(60):
    log.append([{"op": "pin", "nodes": [int(sys.argv[2]) + i]}], author=sys.argv[2])
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, first], env=environment) for first in ("0", "1000")]
    assert [writer.wait() for writer in writers] == [0, 0]
    events = Log(tmp_path, GRAPH, "g").events()
    assert set(graph_state(events).pinned) == {*range(60), *range(1000, 1060)}
    times = [event["at"] for event in events]
    assert times == sorted(set(times))


def test_a_torn_line_is_passed_over_and_taken_out(tmp_path):
    log = Log(tmp_path, GRAPH, "g")
    [first] = log.append([PIN])
    whole = log.path.read_bytes()
    for torn in (b'{"id": "x", "op": "pi', b"\0\0\0", whole.rstrip(b"\n"), b"\xff\xfe"):
        log.path.write_bytes(whole + torn)
        assert log.events() == [first]
        [second] = log.append([{"op": "hide", "nodes": [2]}])
        assert read(log.path) == ([first, second], [])
        log.path.write_bytes(whole)


def test_a_damaged_line_is_told_of_and_the_others_are_read(tmp_path):
    log = Log(tmp_path, GRAPH, "g")
    [first, second] = log.append([PIN, {"op": "hide", "nodes": [2]}])
    lines = log.path.read_bytes().splitlines(keepends=True)
    newer = json.dumps(second | {"id": "n", "op": "of a newer cltdb"}).encode() + b"\n"
    log.path.write_bytes(lines[0] + b"[" * 100_000 + b"\n" + newer + lines[1])
    events, faults = read(log.path)
    assert events == [first, second]
    assert [fault.partition(":")[0] for fault in faults] == [f"{log.path}, line 2", f"{log.path}, line 3"]
    assert all_events(tmp_path) == (events, faults)


def test_an_event_that_is_sent_twice_counts_once(tmp_path):
    log = Log(tmp_path, GRAPH, "g")
    sent = {"id": "mine-1", "op": "group-create", "group": "a", "name": "x", "nodes": [1]}
    first = log.append([sent])
    log.append([{"op": "group-rename", "group": "a", "name": "y"}])
    assert log.append([sent]) == first
    assert len(log.events()) == 2 and graph_state(log.events()).groups[0].name == "y"


@pytest.mark.parametrize("subject", ["a/../../b", "..", "", ".hidden", "x" * 300, "naïve ☃", "a\0b", "a:b", "\ud800", "<script>"])
def test_any_id_has_a_file_of_its_own_in_the_folder(tmp_path, subject):
    log, other = Log(tmp_path, GRAPH, subject), Log(tmp_path, GRAPH, f"{subject}x")
    assert log.path.parent == tmp_path / "annotations/graphs" and log.path != other.path
    if subject != "\ud800":  # which no database can hold
        log.append([PIN])
        assert all_logs(tmp_path) == [log.path] and log.events()[0]["graph_id"] == subject


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    log = Log(tmp_path, GRAPH, "g")
    log.append([PIN])
    before = log.path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Exception, match="no room to write"):
        log.append([PIN])
    assert log.path.read_bytes() == before
