"""A connection for work on whole databases, which reads and writes files: checking, exporting, merging. What it asks is ours alone."""

import fcntl
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cltdb.database.folder import READ_ONCE, views
from cltdb.database.interrupts import interruptible, interrupts_raised
from cltdb.database.literals import quoted
from cltdb.database.outdated import connect_to_ask
from cltdb.database.store import READER_MEMORY_BYTES, reader_config
from cltdb.engine.locks import took


@contextmanager
def workbench(*, memory_bytes=READER_MEMORY_BYTES, **places):
    """A connection to which the databases or exported folders at `places`, {name: path}, are attached under their names, read-only, with the
    memory of a reader, or at most `memory_bytes`. Others may read the databases meanwhile, none writes."""
    import duckdb

    first = Path(next(iter(places.values())))
    with interrupts_raised(), ExitStack() as stack:
        for path in places.values():
            if not Path(path).is_dir():
                stack.enter_context(connect_to_ask(path))
        spill = stack.enter_context(_spill(first))
        connection = stack.enter_context(
            duckdb.connect(config=reader_config(first, memory_bytes) | {"temp_directory": str(spill)})
        )
        stack.enter_context(interruptible(connection))
        connection.execute(f"SET TimeZone = 'UTC'; {READ_ONCE}")
        for name, path in places.items():
            if Path(path).is_dir():
                connection.execute(f"ATTACH ':memory:' AS {name}; {views(path, f'{name}.main')}")
            else:
                connection.execute(f"ATTACH {quoted(path)} AS {name} (READ_ONLY)")
        yield connection


def filled(connection, tables):
    """Those `tables`, names in SQL, that have rows, in the same order."""
    asked = " UNION ALL ".join(f"(SELECT '{table}' FROM {table} LIMIT 1)" for table in tables)
    found = {table for (table,) in connection.execute(asked).fetchall()}
    return [table for table in tables if table in found]


@contextmanager
def _spill(database):
    """A new folder for what does not fit into memory: beside the database, or where one may not write there, among temporary files. It is
    locked as long as its process lives; those that killed processes left there go."""
    beside = Path(database).parent if os.access(Path(database).parent, os.W_OK) else Path(tempfile.gettempdir())
    prefix = f".{Path(database).name}.spill-"
    for left in [path for path in beside.iterdir() if path.name.startswith(prefix)]:
        with _locked(left) as is_ours:
            if is_ours:
                shutil.rmtree(left, ignore_errors=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=beside))
        with _locked(folder) as is_ours:
            if is_ours and folder.is_dir():  # else another process took it, between the two lines, for one that was left
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                return


@contextmanager
def _locked(folder):
    """Locks a folder for the block; gives whether this worked: not where another process has the lock, or where the folder is gone or another's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        yield False
        return
    try:
        yield took(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, folder)
    finally:
        os.close(descriptor)
