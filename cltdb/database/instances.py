"""DuckDB's instances that this process keeps, and the databases that are attached to them.

To start an instance takes 15 ms. A database is attached while someone uses it: between two holds others may have it.

To attach a database of a million features, to let go of it and to read anew which row groups its tables have takes a page half of its time. So a
process that serves pages (`files_kept`) gives the lock of the file back and nothing else: others may write, and where nobody did, the next reader
takes the lock again and goes on where the last one was. DuckDB's lock is one of POSIX, which belongs to the process and not to who took it, so this
module can give it back and take it again. Whoever writes into a database changes its headers, by which that is seen. In no other process, as code
of its own that opens the file with DuckDB would meet an error. A file that nobody asks for IDLE_S seconds is let go of, and so is one of which
much was read.
"""

import atexit
import fcntl
import os
import threading
import time
from contextlib import closing, contextmanager, suppress

from cltdb.database import native
from cltdb.database.interrupts import interrupts_raised
from cltdb.database.literals import quoted

SMALL_ROW_GROUP = 16_384
"""Rows of a row group of DuckDB in a small load. Whenever it lets go of a file, DuckDB merges row groups that are not full, in all tables, into
three full ones at most. With whole ones that wrote up to 370,000 rows of a table anew, for which everybody waited 1.3 CPU seconds."""
IDLE_S = 10.0
KEPT_BYTES = 400e6
"""What DuckDB may keep of a file in memory between two questions."""
HEADERS = slice(4096, 3 * 4096)
"""Where a file of DuckDB has its two headers, of which each checkpoint writes one, with its number."""


class _File:
    """The file of a database that is attached for readers, and how it was then."""

    def __init__(self, path):
        self.path, self.descriptor = path, os.open(path, os.O_RDONLY)
        self.state, self.migrations = self._state(), None
        """`migrations`: those that the database has had, once somebody asked."""

    def _state(self):
        """Changes with every change of the database; None where it is not all in its file, as after a writer was killed."""
        try:
            named, mine = os.stat(self.path), os.fstat(self.descriptor)
        except FileNotFoundError:
            return None
        if os.path.exists(f"{self.path}.wal") or not os.path.samestat(named, mine):
            return None
        return mine.st_size, mine.st_mtime_ns, os.pread(self.descriptor, HEADERS.stop - HEADERS.start, HEADERS.start)

    def give_back(self):
        """Gives the lock of the file back, whoever of this process took it."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def take_again(self):
        """True where this process has the lock again, and the database is as it was attached."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # another program writes, of which DuckDB tells as it attaches the database
            return False
        return self._state() == self.state

    def close(self):
        os.close(self.descriptor)


class _Instance:
    """A DuckDB instance for those who write the database at `path`, or for its readers, who have access to that file alone."""

    def __init__(self, path, config, *, write):
        self.process, self.path, self.config, self.write, self.n_users = os.getpid(), path, config, write, 0
        self.file, self.left_at = None, None
        """The `_File` that is attached for readers, and when the last of them left."""
        self.connection = native.duckdb().connect(config=config | {"temp_directory": f"{path}.tmp"})
        if not write:
            allowed = ", ".join(quoted(f"{path}{suffix}") for suffix in ("", ".wal", ".wal.checkpoint"))
            self.connection.execute(
                f"SET allowed_paths = [{allowed}]; SET enable_external_access = false; SET lock_configuration = true"
            )

    def serves(self, path, config):
        """True where the database at `path` can be attached. Writers of another one take the instance over once nobody uses it, unless something
        of the last one is in its temporary folder."""
        if (self.path, self.config) == (path, config):
            return True
        if not self.write or self.n_users:
            return False
        try:
            self.connection.execute(f"SET temp_directory = {quoted(f'{path}.tmp')}")
        except native.duckdb().Error:
            return False
        self.path = path
        return True

    def attach(self, row_group):
        """Attaches the database, unless it is attached still and has not changed."""
        if self.write:
            n_merges = 0 if row_group else 100
            size = row_group or SMALL_ROW_GROUP
            self.connection.execute(
                f"SET max_vacuum_tasks = {n_merges}; ATTACH {quoted(self.path)} AS cltdb (ROW_GROUP_SIZE {size})"
            )
            return
        if self.file is not None:
            if self.file.take_again():
                return
            self.detach()
        self.connection.execute(f"ATTACH {quoted(self.path)} AS cltdb (READ_ONLY)")
        self.file = _File(self.path)

    def leave(self):
        """Lets others write."""
        if not _keeps or self.file is None or self.file.state is None or self._kept_bytes() > KEPT_BYTES:
            self.detach()
            return
        self.left_at = time.monotonic()
        self.file.give_back()

    def _kept_bytes(self):
        return self.connection.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()[0]

    def detach(self):
        file, self.file = self.file, None
        try:
            self.connection.execute("DETACH cltdb")
        finally:  # DuckDB closes the file first: with it the lock goes
            if file is not None:
                file.close()

    def close(self):
        file, self.file = self.file, None
        self.connection.close()
        if file is not None:
            file.close()


_kept, _keeping, _of_parents = {}, threading.Lock(), []
"""{(write, threads): the instance that this process wrote with last, or read; threads: as in `connect`}. A fork has none of the threads of its
parent's, which it therefore leaves alone."""
_keeps = []
"""Not empty within `files_kept`."""
_timers = []
"""The thread that lets go of what nobody asks for, while there is one."""


def _after_fork():
    _timers.clear()  # a thread of the parent's
    _keeping.release()


os.register_at_fork(before=_keeping.acquire, after_in_parent=_keeping.release, after_in_child=_after_fork)


def _instance_of(path, config, *, write, threads):
    """The instance to which the database at `path` can be attached, which is made where there is none; within `_keeping`. Readers go to the one
    to which it is attached, whatever its threads: of two in one process, the first that let go of the file would take DuckDB's lock along."""
    for instance in _kept.values():
        if not write and not instance.write and instance.n_users and (instance.path, instance.process) == (path, os.getpid()):
            return instance
    instance = _kept.get((write, threads))
    if instance is not None and instance.process != os.getpid():
        _of_parents.append(instance)
        instance = None
    if instance is None or not instance.serves(path, config):
        if instance is not None and not instance.n_users:
            instance.close()
        instance = _kept[write, threads] = _Instance(path, config, write=write)
    return instance


def start_instance(path, config, *, write, threads):
    """Imports DuckDB and starts its instance, 0.12 CPU seconds of a process's first question, which nobody should wait for. What fails here fails
    once more when the database is opened, which says it."""
    with suppress(native.duckdb().Error), interrupts_raised(), _keeping:
        if _kept.get((write, threads)) is None:
            _instance_of(path, config, write=write, threads=threads)


@contextmanager
def attached(path, config, *, write, row_group, threads):
    """(connection, the `_File` for readers) to an instance of this process to which the database at `path` is attached. An instance in which
    something failed is given up: DuckDB may not answer there any more."""
    with _keeping:
        instance = _instance_of(path, config, write=write, threads=threads)
        if not instance.n_users:
            try:
                if write:  # a reader that let go of the file later would take DuckDB's lock along
                    _let_go_of_idle()
                instance.attach(row_group)
            except BaseException:  # Ctrl-C too, after which the file may be attached
                _give_up(instance)
                instance.close()
                raise
        instance.n_users += 1
    try:
        with closing(instance.connection.cursor()) as connection:
            connection.execute("USE cltdb")
            yield connection, instance.file
    except BaseException:
        with _keeping:
            _give_up(instance)
        raise
    finally:
        with _keeping:
            instance.n_users -= 1
            if not instance.n_users:
                _leave(instance)


def _leave(instance):
    """Lets go of the file, also where DuckDB cannot write what is left to write, as on a full disk."""
    try:
        if instance in _kept.values():
            instance.leave()
            _let_go_later()
    except BaseException:
        _give_up(instance)
        raise
    finally:
        if instance not in _kept.values():
            instance.close()


def _give_up(instance):
    for kind in [kind for kind, one in _kept.items() if one is instance]:
        del _kept[kind]


def _idle():
    """The instances of this process to which a database is attached that nobody uses."""
    return [one for one in _kept.values() if one.file is not None and not one.n_users and one.process == os.getpid()]


def _let_go_of_idle(since_s=0.0):
    """Lets go of the files that nobody has used for so long. Not of one that another instance uses, which has the same lock."""
    used = {one.path for one in _kept.values() if one.n_users}
    for instance in _idle():
        if time.monotonic() - instance.left_at >= since_s and instance.path not in used:
            try:
                instance.detach()
            except native.duckdb().Error:
                _give_up(instance)
                instance.close()


def _let_go_later():
    """Lets go of what is idle in IDLE_S seconds."""
    if _idle() and not _timers:
        timer = threading.Timer(IDLE_S, _at_last)
        timer.daemon = True
        _timers.append(timer)
        timer.start()


def _at_last():
    with _keeping:
        if _timers:
            _timers.clear()
            _let_go_of_idle(IDLE_S / 2)
            _let_go_later()


@atexit.register
def _end():
    """No thread may be within DuckDB while Python ends."""
    with _keeping:
        for timer in _timers:
            timer.cancel()
        _timers.clear()


@contextmanager
def files_kept():
    """Within the block files stay attached to this process's readers, which give their locks back alone."""
    _keeps.append(True)
    try:
        yield
    finally:
        _keeps.pop()
        if not _keeps:
            with _keeping:
                _let_go_of_idle()


def close_instances():
    """Closes the instances of this process, of which nobody uses one."""
    with _keeping:
        for instance in _kept.values():
            instance.close()
        _kept.clear()
