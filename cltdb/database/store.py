"""The one place where a database is opened, and the migrations that shape it.

DuckDB lets one process write and none read meanwhile. `connect` orders processes and threads by two file locks beside
the database: `<db>.turn` is taken for a moment by everyone who wants in, `<db>.lock` is shared by readers and held
alone by a writer. A writer first looks for a moment without readers (COURTESY_S), so that no reader waits for another.
Then it keeps the turn until the readers that are in have left, so no new reader overtakes it; it gives the turn back as
soon as it is in, so the first waiting reader follows it.

Every reader gets the same locked-down connection: read-only, no file, network or extension access, no settings. So a
query that came from outside is as safe as any. The threads of one process share one DuckDB instance to read with and
one to write with (an instance cannot have two configurations), which are kept (`instances.py`).
"""

import os
import re
import time
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cltdb.database import instances, native
from cltdb.database.interrupts import interrupts_raised
from cltdb.database.line import place_in_line
from cltdb.database.project import project_settings
from cltdb.engine.workspace import explain_full_disk, is_full_disk
from cltdb.errors import CltdbError

SCHEMA = Path(__file__).parent / "schema"
READER_MEMORY_BYTES, READER_MEMORY_SHARE = 3.5e9, 0.5
"""A reader takes at most this much memory, and this share of the machine's; larger sorts and joins go through the disk."""
WRITER = {"threads": 1}
"""Several threads that insert leave row groups that are not full, which DuckDB writes anew as it closes: a million windows took 1.2 CPU
seconds instead of 0.8, in hardly less time."""
EXACT_VALUES = 2_000
"""A join that looks for so many values or fewer reads only row groups of a table that may hold one of them, by their least and greatest value; of more,
and of more than 50 where DuckDB chooses, all row groups are read. A process's first search reads an eighth less of the file."""
READ_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 900.0
RENAMED = {"0003_imported_graphs.sql": "0004_imported_graphs.sql", "0004_graph_curves.sql": "0005_graph_curves.sql"}
"""Migrations that databases of an earlier cltdb know by another number (two were number 3)."""
DAMAGE = re.compile(
    r"((IO|FATAL|INTERNAL|Serialization|TransactionContext) Error: )*(Corrupt database file|Could not read enough bytes|"
    r'The file "[^"]*" exists, but it is not a valid|not a valid DuckDB|Failed to deserialize|'
    r"Failed: database has been invalidated|Failed to load metadata pointer)"
)
"""How DuckDB's errors begin that tell of a damaged file; every block of it has a checksum."""


HELD = re.compile(r"Conflicting lock is held in (.+?\(PID \d+\))")
"""What DuckDB says of a file that a program has open which knows nothing of our line."""


class Outdated(CltdbError):
    """A database that lacks migrations."""


class Damaged(CltdbError):
    """A file that is not as DuckDB wrote it."""


@contextmanager
def connect(path, *, write=False, row_group=None, timeout_s=None, threads=None):
    """A DuckDB connection to the database at `path`, for one query or one short transaction.

    A writer creates a missing database and applies pending migrations; a reader needs a complete one. `row_group`: what is written fills row
    groups of so many rows, which none are merged with. `timeout_s` is how long to wait for the others (default 60 to read, 900 to write).
    `threads`: 1 for a reader's questions about few rows, of which several threads make more work than they share.
    """
    path = Path(path)
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise CltdbError(
            str(path),
            found="no database",
            expected="a database file",
            do="run `cltdb run SPEC` first, or `cltdb db rebuild`",
        )
    if timeout_s is None:
        timeout_s = WRITE_TIMEOUT_S if write else READ_TIMEOUT_S
    instances.start_instance(path.absolute(), _config(path, write, threads), write=write, threads=threads)
    with (
        explain_full_disk(
            path, do="set `database: {path: …}` in cltdb.yaml, or -o of `cltdb db merge`, to a file on a larger disk"
        ),
        place_in_line(path, write=write, deadline=time.monotonic() + timeout_s),
        interrupts_raised(),
    ):
        if write and not path.exists():
            _create(path)
        with _damage_said(path), _open(path, write=write, row_group=row_group, threads=threads) as (connection, file):
            if write:
                apply(connection, mark=behind(path))
            else:
                if file.migrations is None:
                    file.migrations = applied(connection)
                _require_current(file.migrations, path)
            yield connection


@contextmanager
def connect_current(path, *, timeout_s=None):
    """A reader's connection to a database that is brought up to date first where an earlier cltdb made it, for who goes on to write."""
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(connect(path, timeout_s=timeout_s))
        except Outdated:
            with connect(path, write=True, timeout_s=timeout_s):
                pass
            connection = stack.enter_context(connect(path, timeout_s=timeout_s))
        yield connection


@contextmanager
def _damage_said(path):
    """Turns what DuckDB says of a damaged file, whoever met it in the block, into the one line that tells what mends it."""
    try:
        yield
    except Damaged:  # said of another database, which is open beside this one
        raise
    except Exception as error:
        words = _damage(error)
        if words is None:
            raise
        raise Damaged(
            str(path),
            found=f"a damaged database ({words})",
            expected="the file as DuckDB wrote it",
            do="run `cltdb db rebuild`, which makes the project's anew from its artifacts, or take a whole copy of another's",
        ) from error


def _damage(error):
    """What DuckDB said of the file's damage, in the error or in one that led to it; None where it said nothing of the kind."""
    while error is not None:
        if type(error).__module__.split(".")[0] in ("_duckdb", "duckdb", "pyarrow", "builtins") and not is_full_disk(error):
            if found := DAMAGE.match(str(error)):
                return str(error).splitlines()[0][: found.end() + 120]
        error = error.__cause__
    return None


def _create(path):
    """A new database with all tables, made aside and renamed: killed in between, it is not there."""
    aside, log = (path.with_name(f".{path.name}.new{ending}") for ending in ("", ".wal"))
    for left in (aside, log):
        left.unlink(missing_ok=True)
    try:
        with _open(aside, write=True) as (connection, _):
            apply(connection)
        os.replace(aside, path)
    finally:
        for left in (aside, log):
            left.unlink(missing_ok=True)


@cache
def reader_config(path, memory_bytes=READER_MEMORY_BYTES):
    """What every reader of the database at `path` may take: memory_limit, threads; with what its project's cltdb.yaml says of them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = f"{min(memory_bytes, READER_MEMORY_SHARE * memory) / 1e6:.0f}MB"
    said = project_settings(path)
    return {"memory_limit": limit} | {name: getattr(said, name) for name in ("memory_limit", "threads") if getattr(said, name)}


def _config(path, write, threads):
    if write:
        return WRITER
    return reader_config(path) | {"dynamic_or_filter_threshold": EXACT_VALUES} | ({"threads": threads} if threads else {})


def behind(path):
    """The file that stands beside a database from its migration on until what is made from its tables is made anew: a kill in between leaves it."""
    return Path(f"{path}.behind")


def remove_database(path):
    """Removes the file of a database and those beside it."""
    for suffix in ("", ".wal", ".turn", ".lock", ".behind"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


@contextmanager
def _open(path, *, write, row_group=None, threads=None):
    duckdb = native.duckdb()
    if path.exists() and path.stat().st_size == 0:  # which DuckDB takes for a new one
        raise duckdb.IOException("IO Error: not a valid DuckDB database file: it is empty")
    with ExitStack() as stack:
        try:
            config = _config(path, write, threads)
            whole = instances.attached(path.absolute(), config, write=write, row_group=row_group, threads=threads)
            opened = stack.enter_context(whole)
        except duckdb.Error as error:
            if is_full_disk(error) or _damage(error):
                raise
            found, do = f"a file that DuckDB does not open ({error})", "if it is damaged, run `cltdb db rebuild`"
            if holder := HELD.search(str(error)):
                found = f"a database that another program has open ({holder[1]})"
                do = "close it there; who only reads may open it with `cltdb.open`, which keeps nobody out"
            raise CltdbError(str(path), found=found, expected="a cltdb database that is free", do=do) from error
        yield opened


@contextmanager
def exclusive(path, *, timeout_s=WRITE_TIMEOUT_S):
    """Keeps everybody else out of the database without opening it; for replacing its file."""
    with place_in_line(Path(path), write=True, deadline=time.monotonic() + timeout_s):
        yield


# Migrations: numbered files in schema/, each applied in one transaction with its record; then the views anew (schema/README.md).


def migrations():
    """The numbered migrations, oldest first, as {file name: SQL}."""
    return dict(_numbered(SCHEMA, SCHEMA.stat().st_mtime_ns))


@cache
def _numbered(folder, _changed_ns):
    """{file name: SQL}, read once as every reader asks for them."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("[0-9]*.sql"))}


def views():
    """The SQL of the views with their comments."""
    path = SCHEMA / "views.sql"
    return _text(path, path.stat().st_mtime_ns)


@cache
def _text(path, _changed_ns):
    return path.read_text(encoding="utf-8")


def applied(connection):
    """Names of the migrations this database has had, as they are called today."""
    return _as_today(_recorded(connection))


def _as_today(recorded):
    return sorted(RENAMED.get(name, name) for name in recorded)


def _recorded(connection):
    try:
        return sorted(name for (name,) in connection.execute("SELECT name FROM schema_migrations").fetchall())
    except native.duckdb().CatalogException:  # a new file
        return []


def apply(connection, *, mark=None):
    """Applies what is pending, each migration with its record in one transaction, the last together with the views; to a new database all of them
    in one, which takes a third less. Returns the names of what was pending, oldest first. mark: a file that is made before an earlier cltdb's database
    is changed."""
    recorded = _recorded(connection)
    done, known = set(_as_today(recorded)), migrations()
    if todo := [name for name in known if name not in done]:
        [(path,)] = connection.execute("SELECT path FROM duckdb_databases() WHERE database_name = current_database()").fetchall()
    if recorded and todo and mark:
        mark.touch()
    with nullcontext() if recorded else transaction(connection):
        for name in todo:
            with transaction(connection) if recorded else nullcontext():
                _apply(connection, name, known[name], path)
                if name == todo[-1]:
                    connection.execute(views())
                connection.execute("INSERT INTO schema_migrations VALUES (?, ?)", [name, now()])
    for before in RENAMED.keys() & set(recorded):
        connection.execute("UPDATE schema_migrations SET name = ? WHERE name = ?", [RENAMED[before], before])
    return todo


def _apply(connection, name, sql, path):
    """CltdbError where the migration does not fit what is there, such as one that was applied and whose record is gone."""
    import duckdb

    try:
        connection.execute(sql)
    except duckdb.CatalogException as error:
        raise CltdbError(
            str(path),
            found=f"no record of migration {name} in schema_migrations, and tables that it does not fit ({str(error).splitlines()[0]})",
            expected="a record of each migration that was applied",
            do="run `cltdb db rebuild`, or take a copy of the file",
        ) from error


@contextmanager
def transaction(connection):
    """Commits what the block did, or nothing of it."""
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def now():
    """The present as the database stores it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _require_current(done, path):
    done, known = set(done), set(migrations())
    if known - done:
        raise Outdated(
            str(path),
            found=f"a database without {', '.join(sorted(known - done))}",
            expected="the current schema",
            do="ask it once in its project, such as with `cltdb sql`, which brings it up to date; of a database without one,"
            " `cltdb db merge` makes a new one",
        )
    if done - known:
        raise CltdbError(
            str(path),
            found=f"a database of a newer cltdb ({', '.join(sorted(done - known))})",
            expected=f"migrations up to {max(known)}",
            do="upgrade cltdb",
        )
