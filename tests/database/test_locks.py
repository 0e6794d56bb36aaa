"""Locks of files where the file system has none, or is particular about them."""

import errno
import fcntl
import os

import pytest
from worlds import tiny_experiment as world

from cltdb.annotations.log import Log
from cltdb.annotations.operations import FEATURES
from cltdb.database.api import Database
from cltdb.database.store import connect
from cltdb.engine.locks import held
from cltdb.errors import CltdbError


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_nothing_is_read_or_written_and_the_error_says_why(database, tmp_path, monkeypatch, number):
    def flock(file, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    log = Log(tmp_path, FEATURES, world.DICT)
    note = {"op": "note", "id": "note", "layer": 0, "feature": 0, "text": "a note"}
    for use in (
        lambda: Database(database).dictionaries(),
        lambda: connect(database, write=True).__enter__(),
        lambda: held(tmp_path / "one.lock").__enter__(),
        lambda: held(tmp_path / "one.lock", refused=AssertionError()).__enter__(),
        lambda: log.append([note]),
    ):
        with pytest.raises(CltdbError, match="a file system that does not lock files .*local disk"):
            use()
    assert log.events() == []


def test_locks_are_taken_of_files_open_for_writing_as_nfs_wants_them(database, tmp_path, monkeypatch):
    flock, asked = fcntl.flock, []

    def of_nfs(file, kind):
        asked.append(kind)
        if kind & fcntl.LOCK_EX and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    with connect(database, write=True):
        pass
    assert Database(database).dictionaries().height == 1
    with held(tmp_path / "one.lock"):
        assert fcntl.LOCK_EX in asked


@pytest.mark.parametrize("are_there", [True, False])
def test_a_reader_without_a_free_descriptor_does_not_read_without_a_lock(database, tmp_path, monkeypatch, are_there):
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(database.read_bytes())
    if are_there:
        Database(copy).dictionaries()
    open_file = os.open

    def without(path, *how, **more):
        if str(path).endswith((".turn", ".lock")):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) if are_there or how[0] & os.O_CREAT else FileNotFoundError
        return open_file(path, *how, **more)

    monkeypatch.setattr(os, "open", without)
    with pytest.raises(OSError, match="Too many open files"):
        Database(copy).dictionaries()
