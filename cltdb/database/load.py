"""Finished artifacts and run records into the database, exactly once each.

Parts load in short transactions with pauses between them, so that no reader waits long; a killed load continues where
it was.
"""

import logging
import math
import time
from collections import deque
from functools import partial
from itertools import chain
from pathlib import Path

from cltdb.database.derived import SMALL_FEATURES, is_settled, mark, refresh, scattered_pieces, stale_pieces
from cltdb.database.embeddings import refresh_embeddings
from cltdb.database.parts import CHUNK_BYTES, ROW_GROUPS, Loaded, artifact_parts, load_chunk, loaded_parts, made_when, read_chunks
from cltdb.database.records import select_records
from cltdb.database.store import connect, connect_current, now, transaction
from cltdb.database.words import changed_words, refresh_words
from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
__all__ = [
    "forget_provisional",
    "load_artifact",
    "load_artifacts",
    "lacks",
    "load_missing",
    "known_artifacts",
    "save_records",
    "unload_artifact",
]

HOLD_S = 0.15
"""No new transaction is begun after holding the database this long."""
LARGE_BYTES = 50_000_000
"""Parquet of more than this is a large load (`store.connect`): a million features have 1.7 GB."""
PAUSE_S = 0.01
"""Pause between two holds, in which readers get in."""


def load_artifact(path, *, key, directory, **options):
    """Loads one artifact, as `load_artifacts` does."""
    return load_artifacts(path, [(key, directory)], **options)


def load_artifacts(path, artifacts, *, table=None, wait_s=None, budget_s=math.inf, hold_s=None):
    """Loads the parts of `artifacts`, (key, directory) pairs, that the database at `path` does not have yet; returns the rows it read.

    Where nothing is missing the database is only read. A bad file is an error that names it. What was loaded before it stays, and a later
    call loads what is missing. Rows that were published while an artifact was unfinished (it had no manifest) are taken out and loaded
    from the finished one. `table`: only the parts of this table. `wait_s`: how long to wait for other processes (as in `connect`).
    `budget_s`: after this long, what is left is for the next call. `hold_s`: no transaction begins after holding the database this long
    (default HOLD_S).
    """
    deadline = time.monotonic() + budget_s
    parts = {(key, directory): _parts_of(directory, table) for key, directory in artifacts}
    if not any(parts.values()):
        return 0
    known, is_behind = {}, False
    if Path(path).is_file():
        with connect_current(path, timeout_s=wait_s) as connection:
            known = _known(connection, [key for key, _ in parts])
            is_behind = not any(_lacking(known, key, of_one) for (key, _), of_one in parts.items()) and _is_behind(connection)
    work = _to_load(parts, known)
    first = next(work, None)
    if first is None and not is_behind:
        return 0
    sizes = [part.path.stat().st_size for of_artifact in parts.values() for part in of_artifact if part.path.exists()]
    large, work = sum(sizes) > LARGE_BYTES, chain([first] if first else [], work)
    rows = _work_off(path, work, large=large, wait_s=wait_s, deadline=deadline, hold_s=hold_s)
    if table is None and time.monotonic() < deadline and refresh_words(path):
        refresh_embeddings(path)
    return rows


def _work_off(path, work, *, large=False, wait_s=None, deadline=math.inf, hold_s=None):
    """Does what `work` says, (function of a connection that returns how many rows it loaded, bytes, rows of a row group) triples, then makes
    stale derived tables anew, until the deadline is over. The database is held for a short while at a time, and nothing is read meanwhile.
    Returns the rows."""
    work, steps, rows, began, hold_s = iter(work), deque(), 0, None, HOLD_S if hold_s is None else hold_s
    while time.monotonic() < deadline:
        if not steps:
            found, row_group = _next_steps(path, work, large=large, wait_s=wait_s)
            steps.extend(found)
        if not steps:
            break
        if began is not None:
            time.sleep(PAUSE_S)
        with connect(path, write=True, row_group=row_group, timeout_s=wait_s) as connection:
            began, step = time.monotonic(), None
            while steps and time.monotonic() - began < hold_s:
                step = steps.popleft()
                rows += step(connection)
            if step is _refresh_small and not steps and is_settled(connection):
                break  # without a look of its own at what is left, of 10 ms
    return rows


def _next_steps(path, work, *, large, wait_s):
    """(functions of a connection that come next in `work`, about CHUNK_BYTES, or at its end those that make derived tables anew and put their rows
    in order; rows of a row group of a large load, the fewest of these, or None). What cannot be read is an error when its turn comes."""
    steps, n_bytes, row_group = [], 0, ROW_GROUPS[0] if large else None
    try:
        for step, of_step, of_its_groups in work:
            steps.append(step)
            n_bytes, row_group = n_bytes + of_step, row_group and min(row_group, of_its_groups)
            if n_bytes >= CHUNK_BYTES:
                return steps, row_group
    except CltdbError as error:
        return [*steps, partial(_refuse, error=error)], row_group
    if steps:
        return [*steps, _refresh_small], row_group
    with connect_current(path, timeout_s=wait_s) as connection:
        if pieces := stale_pieces(connection):
            return pieces, row_group
        return scattered_pieces(connection), ROW_GROUPS[0]


def settle(path):
    """Makes anew what is stale of tables that are made from others, and the words of dictionaries, without loading anything."""
    _work_off(path, [])
    refresh_words(path)


def _refuse(_, *, error):
    raise error


def _refresh_small(connection):
    refresh(connection, most_features=SMALL_FEATURES)
    return 0


def _parts_of(directory, table):
    return [part for part in artifact_parts(directory) if table in (None, part.table)]


def _known(connection, keys):
    """{key: (when it was made, {part: Loaded})} of artifacts that the database knows."""
    made = connection.execute(
        "SELECT artifact_key, made_at FROM loaded_artifacts WHERE list_contains(?, artifact_key)", [keys]
    ).fetchall()
    parts = loaded_parts(connection, *(key for key, _ in made))
    return {key: (made_at, of_one) for (key, made_at), of_one in zip(made, parts, strict=True)}


def _is_behind(connection):
    """True where a derived table or the words of a dictionary are not made from what is there, or rows are to be put in order."""
    return not is_settled(connection) or bool(changed_words(connection))


def _lacking(known, key, parts):
    """Those `parts` of an artifact that are not wholly loaded."""
    _, progress = known.get(key, ("", {}))
    return [part for part in parts if not progress.get(part.name, Loaded()).complete]


def _to_load(parts, known):
    """Functions of a connection that load what is missing, each in one transaction, and return the rows they read; each with its bytes and the rows of its row
    groups."""
    for (key, directory), of_artifact in parts.items():
        made_at, (known_as, progress) = made_when(directory), known.get(key, (None, {}))
        if made_at and known_as == "":
            progress = {}
            yield partial(_forget_provisional, key=key), 0, ROW_GROUPS[0]
        done = [(part, progress.get(part.name, Loaded())) for part in of_artifact]
        todo = [(part, loaded.rows) for part, loaded in done if not loaded.complete]
        for chunk in read_chunks(todo):
            yield partial(load_chunk, chunk=chunk, key=key, made_at=made_at), chunk.rows.nbytes, chunk.row_group


def unload_artifact(path, *, key):
    """Takes out all rows of artifact `key`, which is made again under the same key; returns keys of artifacts to load again.

    These are the earlier artifacts of which it had replaced rows. Their rows are taken out of the same tables.
    """
    with connect(path, write=True) as connection, transaction(connection):
        again = set()
        for table in _tables_of(connection, key):
            replaced = connection.execute(
                "SELECT DISTINCT artifact_key FROM loaded_parts WHERE superseded AND starts_with(part, ?) AND artifact_key <> ?",
                [f"{table}/", key],
            ).fetchall()
            for artifact_key in (key, *(other for (other,) in replaced)):
                _delete_rows(connection, table, artifact_key)
                connection.execute(
                    "DELETE FROM loaded_parts WHERE artifact_key = ? AND starts_with(part, ?)", [artifact_key, f"{table}/"]
                )
            again.update(other for (other,) in replaced)
        connection.execute("DELETE FROM loaded_artifacts WHERE artifact_key = ?", [key])
    _work_off(path, [(_refresh_small, 0, ROW_GROUPS[0])])
    refresh_words(path)
    return sorted(again)


def _tables_of(connection, key):
    [loaded] = loaded_parts(connection, key)
    return sorted({name.split("/")[0] for name in loaded})


def _delete_rows(connection, table, key):
    connection.execute("SET VARIABLE doomed = ?::VARCHAR", [key])
    doomed = f"FROM {table} WHERE artifact_key = getvariable('doomed')"
    mark(connection, table, doomed)
    connection.execute(f"DELETE {doomed}")


def forget_provisional(path, *, key, wait_s=None):
    """Takes out what was published of artifact `key` before it was finished."""
    with connect(path, write=True, timeout_s=wait_s) as connection:
        _forget_provisional(connection, key)


def _forget_provisional(connection, key):
    made_at = connection.execute("SELECT made_at FROM loaded_artifacts WHERE artifact_key = ?", [key]).fetchone()
    if made_at == ("",):
        with transaction(connection):
            for table in _tables_of(connection, key):
                _delete_rows(connection, table, key)
            for table in ("loaded_parts", "loaded_artifacts"):
                connection.execute(f"DELETE FROM {table} WHERE artifact_key = ?", [key])
    return 0


def lacks(path, artifacts):
    """(keys of those `artifacts`, (key, directory) pairs, of which the database lacks a part or has another making, whether a derived
    table is stale)."""
    with connect_current(path) as connection:
        known, is_behind = _known(connection, [key for key, _ in artifacts]), _is_behind(connection)
    return [key for key, directory in artifacts if _is_absent(known, key, directory)], is_behind


def made_again(path, artifacts):
    """Keys of those `artifacts`, (key, directory) pairs, that were made again under their key since they were loaded."""
    if not Path(path).is_file():
        return []
    with connect_current(path) as connection:
        known = _known(connection, [key for key, _ in artifacts])
    return [key for key, directory in artifacts if _is_other(known, key, directory)]


def _is_other(known, key, directory):
    return known.get(key, ("", {}))[0] not in ("", made_when(directory))


def known_artifacts(path):
    """Keys of the finished artifacts that the database knows."""
    with connect_current(path) as connection:
        return {key for (key,) in connection.execute("SELECT artifact_key FROM loaded_artifacts WHERE made_at <> ''").fetchall()}


def load_missing(path, artifacts):
    """Loads what is missing of those `artifacts`, (key, directory) pairs, that the database knows. A part is missing where a later
    artifact had replaced its rows and was then taken out (`unload_artifact`)."""
    with connect_current(path) as connection:
        known = _known(connection, [key for key, _ in artifacts])
    load_artifacts(path, [(key, directory) for key, directory in artifacts if key in known])


def _is_absent(known, key, directory):
    return _is_other(known, key, directory) or bool(_lacking(known, key, artifact_parts(directory)))


# Run records


def save_records(path, *, experiments, stage_runs, wait_s=None):
    """Writes run records: dicts with the columns of the two tables, missing ones NULL. Of an experiment the first record stays, but for
    its sweep, which may come later; of a run the last.

    Times are datetimes or ISO 8601 text, `versions` and `swept` a dict or JSON text. `wait_s`: as in `connect`.
    """
    experiments = [{**row, "created_at": row.get("created_at") or now()} for row in experiments]
    keep_first = "ON CONFLICT DO UPDATE SET sweep = coalesce(sweep, excluded.sweep), swept = coalesce(swept, excluded.swept)"
    with connect(path, write=True, timeout_s=wait_s) as connection, transaction(connection):
        _insert_records(connection, "INSERT", "experiments", experiments, keep_first)
        _insert_records(connection, "INSERT OR REPLACE", "stage_runs", stage_runs)


def _insert_records(connection, insert, table, records, conflict=""):
    """Writes records that differ from those that are there."""
    if records:
        connection.execute(f"{insert} INTO {table} ({select_records(connection, table, records)} EXCEPT FROM {table}) {conflict}")
