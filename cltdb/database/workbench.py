"""A connection for work on whole databases, which reads and writes files: checking, exporting, merging. What it asks is ours alone."""

import os
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cltdb.database.folder import views
from cltdb.database.literals import quoted
from cltdb.database.store import connect, reader_config


@contextmanager
def workbench(**places):
    """A connection to which the databases or exported folders at `places`, {name: path}, are attached under their names, read-only, with the
    memory of a reader. Others may read the databases meanwhile, none writes."""
    import duckdb

    first = Path(next(iter(places.values())))
    folder = first.parent if os.access(first.parent, os.W_OK) else None
    with ExitStack() as stack:
        for path in places.values():
            if not Path(path).is_dir():
                stack.enter_context(connect(path))
        spill = stack.enter_context(tempfile.TemporaryDirectory(prefix=f".{first.name}.spill-", dir=folder))
        connection = stack.enter_context(duckdb.connect(config=reader_config(first) | {"temp_directory": spill}))
        connection.execute("SET TimeZone = 'UTC'")
        for name, path in places.items():
            if Path(path).is_dir():
                connection.execute(f"ATTACH ':memory:' AS {name}; {views(path, f'{name}.main')}")
            else:
                connection.execute(f"ATTACH {quoted(path)} AS {name} (READ_ONLY)")
        yield connection
