"""`cltdb db merge`: the databases of several machines as one, which holds what a run over all their artifacts would have loaded.

Databases are merged rather than workspaces: they hold every row, while artifacts with their activations and weights are hundreds of times
larger and stay where they were made. Of an artifact that several hold the rows must be the same, but for columns that tell of the run
(times, machine, path). Of a group of rows that is replaced as a whole those of the artifact that was made last are taken, as in loading.
The result is made aside, checked and renamed in place; the sources are only read, of one that an earlier cltdb made a copy.
"""

import glob
import os
import shutil
import time
from pathlib import Path

from cltdb.database.annotated import make_rows
from cltdb.database.check import check
from cltdb.database.derived import mark, refresh
from cltdb.database.embeddings import copy_embeddings
from cltdb.database.line import place_in_line
from cltdb.database.literals import quoted
from cltdb.database.problem import Unsound, found
from cltdb.database.store import READ_TIMEOUT_S, Outdated, connect
from cltdb.database.tables import ARTIFACT_KEY, all_tables, loaded_tables
from cltdb.database.words import refresh_words
from cltdb.database.workbench import filled, workbench
from cltdb.engine.records import CACHED
from cltdb.engine.workspace import ELSEWHERE, explain_full_disk
from cltdb.errors import CltdbError


def merge(sources, target, *, despite_problems=False):
    """Makes the database `target` of `sources`, paths of databases and exported folders; returns how many artifacts it has, how many of them several
    sources hold, and what is wrong with it. Unsound where something is, unless it is to be made `despite_problems`."""
    target, names = Path(target), {f"source_{number}": Path(path) for number, path in enumerate(sources)}
    for path in names.values():
        if not path.exists():
            expected = "a database file, or a folder that cltdb db export wrote"
            raise CltdbError(str(path), found="nothing there", expected=expected, do="mend the path")
    aside = target.with_name(f".{target.name}.merging")
    _remove(aside)
    try:
        with explain_full_disk(target, do=ELSEWHERE):
            counts = _merged(aside, names)
            problems = check(aside)
            if problems and not despite_problems:
                raise Unsound(
                    str(target),
                    problems=problems,
                    found=f"{len(problems)} problems in what was merged: {problems[0]}",
                    expected="none",
                    do="see which of the databases has them with `cltdb db check --from`, and make that one anew with `cltdb db rebuild`; "
                    "--despite-problems merges them as they are",
                )
            os.replace(aside, target)
    finally:
        _remove(aside)
    return *counts, problems


def _remove(aside):
    """Removes a database that was made aside and all that lies beside it under its name."""
    for path in aside.parent.glob(f"{glob.escape(aside.name)}*"):
        path.unlink()


def _merged(aside, names):
    """Fills the new database `aside`; returns what `merge` does. names: {name in SQL: source}."""
    with connect(aside, write=True):
        pass
    with (
        workbench(
            **{name: _current(path, aside.with_name(f"{aside.name}.{name}")) for name, path in names.items()}
        ) as connection,
        explain_full_disk(aside, do=ELSEWHERE),  # which is none of the sources
    ):
        connection.execute(f"ATTACH {quoted(aside)} AS merged; USE merged")
        counts = _find_artifacts(connection, names)
        _require_whole(connection, names)
        _require_same_runs(connection, names)
        held = filled(connection, [f"{name}.{table}" for table in loaded_tables() for name in names])
        tables = [loaded_tables()[table] for table in dict.fromkeys(name.partition(".")[2] for name in held)]
        for table in tables:
            _require_same(connection, table, list(names.values()))
        _merge_records(connection, names)
        for table in tables:
            _merge_table(connection, table, names)
        copy_embeddings(connection, names)
        _merge_events(connection, names)
        refresh(connection)
    refresh_words(aside)
    return counts


def _current(path, copy):
    """The source at `path`, or of a database that an earlier cltdb made a `copy`, brought up to date."""
    if path.is_dir():
        return path
    try:
        with connect(path):
            return path
    except Outdated:
        with place_in_line(path, write=False, deadline=time.monotonic() + READ_TIMEOUT_S):
            for suffix in ("", ".wal"):  # the latter is there where a writer was killed
                if Path(f"{path}{suffix}").exists():
                    shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with connect(copy, write=True):
            return copy


def _every(names, select):
    """SQL of the rows of all sources; select: SQL of one, in which {source} is its name and {number} its number."""
    return " UNION ALL ".join(select.format(source=name, number=number) for number, name in enumerate(names))


def _find_artifacts(connection, names):
    """Makes table `usable`: which source holds which artifact, and when that was made. What is unfinished counts where no source has it
    finished, and then in the source that has most of it. Returns (number of artifacts, how many of them several sources hold)."""
    held = _every(
        names,
        "SELECT artifact_key, made_at, {number} AS source, (SELECT sum(rows) FROM {source}.loaded_parts AS p"
        " WHERE p.artifact_key = a.artifact_key) AS n FROM {source}.loaded_artifacts AS a",
    )
    connection.execute(
        "CREATE TEMP TABLE usable AS SELECT artifact_key, source, last AS made_at FROM (SELECT *,"
        " max(made_at) OVER (PARTITION BY artifact_key) AS last,"
        f" row_number() OVER (PARTITION BY artifact_key ORDER BY n DESC, source) AS place FROM ({held}))"
        " WHERE made_at <> '' OR (last = '' AND place = 1)"
    )
    for table in loaded_tables():
        rows = f"SELECT t.*, {{number}} AS source FROM {{source}}.{table} AS t SEMI JOIN usable AS u"
        rows += " ON u.artifact_key = t.artifact_key AND u.source = {number}"
        connection.execute(f"CREATE TEMP VIEW held_{table} AS {_every(names, rows)}")
    return connection.execute(
        "SELECT count(*), count(*) FILTER (n > 1) FROM (SELECT count(*) AS n FROM usable GROUP BY artifact_key)"
    ).fetchone()


# What cannot be merged


def _require_whole(connection, names):
    """CltdbError where a source has a finished artifact only in part."""
    for name, path in names.items():
        found = connection.execute(
            f"SELECT artifact_key, part FROM {name}.loaded_parts JOIN {name}.loaded_artifacts USING (artifact_key)"
            " WHERE NOT complete AND made_at <> '' ORDER BY ALL LIMIT 1"
        ).fetchone()
        if found:
            do = "run its spec there again, or cltdb db rebuild"
            raise CltdbError(
                str(path), found=f"{found[1]} of artifact {found[0]} only partly loaded", expected="a whole database", do=do
            )


def _require_same(connection, table, paths):
    """CltdbError where two sources hold other rows of one artifact."""
    compared = ", ".join(name for name in table.column_names if not _tells_of_run(name))
    pairs = connection.execute(
        f"WITH sums AS (SELECT artifact_key, source, count(*) AS n, sum(hash({compared})) AS h FROM held_{table.name} SEMI JOIN"
        " (SELECT artifact_key FROM usable GROUP BY ALL HAVING count(*) > 1) USING (artifact_key) GROUP BY ALL)"
        " SELECT artifact_key, a.source, b.source FROM usable AS a JOIN usable AS b USING (artifact_key)"
        " LEFT JOIN sums AS x ON x.artifact_key = a.artifact_key AND x.source = a.source"
        " LEFT JOIN sums AS y ON y.artifact_key = b.artifact_key AND y.source = b.source"
        " WHERE a.source < b.source AND (x.n, x.h) IS DISTINCT FROM (y.n, y.h) ORDER BY ALL"
    ).fetchall()
    for key, *both in pairs:
        one, other = (
            f"(SELECT * FROM held_{table.name} WHERE artifact_key = {quoted(key)} AND source = {source})" for source in both
        )
        names = ", ".join(f"a.{name}" for name in table.key)
        same_key = " AND ".join(f"a.{name} IS NOT DISTINCT FROM b.{name}" for name in table.key)
        hashes = [
            f"hash({', '.join(f'{side}.{name}' for name in table.column_names if not _tells_of_run(name))})" for side in "ab"
        ]
        unlike = [f"SELECT {names} FROM {one} AS a JOIN {other} AS b ON {same_key} WHERE {hashes[0]} <> {hashes[1]}"]
        if not _is_superseded(connection, table.name, key, both):
            unlike += [f"SELECT {names} FROM {x} AS a ANTI JOIN {y} AS b ON {same_key}" for x, y in ((one, other), (other, one))]
        for problem in (problem for sql in unlike for problem in found(connection, table.name, sql, "")):
            raise CltdbError(
                f"artifact {key}",
                found=f"other rows in {paths[both[0]]} than in {paths[both[1]]}: {problem.rows}",
                expected="the same rows of an artifact everywhere",
                do="leave one of the databases out, or make the artifact anew on one machine, with another seed, and load it there",
            )


def _require_same_runs(connection, names):
    """CltdbError where two sources have other records of a run that has ended. What links a spec to an artifact that was there has the same id on
    every machine."""
    columns = ", ".join(all_tables()["stage_runs"].column_names)
    rows = _every(names, f"SELECT run_id, status, hash({columns}) AS h, {{number}} AS source FROM {{source}}.stage_runs")
    unlike = connection.execute(
        f"SELECT run_id, min_by(source, h), max_by(source, h) FROM ({rows}) WHERE status <> 'running'"
        f" AND NOT ends_with(run_id, {quoted(CACHED)}) GROUP BY run_id HAVING count(DISTINCT h) > 1 ORDER BY ALL"
    ).fetchone()
    if unlike:
        paths = list(names.values())
        raise CltdbError(
            f"run {unlike[0]}",
            found=f"another record in {paths[unlike[1]]} than in {paths[unlike[2]]}",
            expected="the same record of a run everywhere",
            do="leave one of the databases out",
        )


def _is_superseded(connection, table, key, numbers):
    """True where one of the sources lacks rows of the artifact because a later one replaced them."""
    return any(
        connection.execute(
            f"SELECT count(*) > 0 FROM source_{number}.loaded_parts WHERE superseded AND artifact_key = ? AND starts_with(part, ?)",
            [key, f"{table}/"],
        ).fetchone()[0]
        for number in numbers
    )


def _tells_of_run(column):
    """True of columns in which two runs with the same result differ."""
    return column.endswith("_at") or column in ("seconds", "host", "path")


# Merging


def _merge_events(connection, names):
    """What users did on all machines: every event once, and the rows that they amount to."""
    rows = _every(names, "SELECT * FROM {source}.annotation_events")
    connection.execute(f"INSERT INTO annotation_events SELECT DISTINCT ON (event_id) * FROM ({rows}) ORDER BY event_id, made_at")
    make_rows(connection)


def _merge_records(connection, names):
    """Of an experiment the first record, with what only a later one says; of a run, and of what links a spec to an artifact, the last."""
    table = all_tables()["experiments"]
    key, rest = ", ".join(table.key), [name for name in table.column_names if name not in table.key]
    first = ", ".join(f"min_by({name}, (coalesce(created_at, 'infinity'), source)) FILTER ({name} IS NOT NULL)" for name in rest)
    rows = _every(names, "SELECT *, {number} AS source FROM {source}.experiments")
    connection.execute(f"INSERT INTO experiments ({key}, {', '.join(rest)}) SELECT {key}, {first} FROM ({rows}) GROUP BY {key}")
    columns = ", ".join(all_tables()["stage_runs"].column_names)
    rows = _every(names, "SELECT *, {number} AS source FROM {source}.stage_runs")
    connection.execute(
        f"INSERT INTO stage_runs ({columns}) SELECT {columns} FROM ({rows})"
        " QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY status = 'running', started_at DESC, source) = 1"
    )
    connection.execute("INSERT INTO loaded_artifacts SELECT DISTINCT artifact_key, made_at FROM usable")
    rows = _every(names, "SELECT *, {number} AS source FROM {source}.loaded_parts")
    connection.execute(
        "INSERT INTO loaded_parts SELECT artifact_key, part, max(rows), min(loaded_at), bool_and(complete), bool_or(superseded)"
        f" FROM ({rows}) SEMI JOIN usable USING (artifact_key, source) GROUP BY artifact_key, part"
    )


def _merge_table(connection, table, names):
    """The rows of a loaded table: of each group those of the artifact that was made last, from the first source that holds them."""
    group = ", ".join(table.replaced_together)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE groups AS SELECT *, row_number() OVER (PARTITION BY {group}"
        " ORDER BY made_at DESC, artifact_key DESC, source) AS place, first(artifact_key) OVER (PARTITION BY"
        f" {group} ORDER BY made_at DESC, artifact_key DESC, source) AS last FROM (SELECT DISTINCT {group}, artifact_key, source"
        f" FROM held_{table.name}) JOIN usable USING (artifact_key, source)"
    )
    columns = ", ".join(table.column_names)
    same = " AND ".join(f"t.{name} = g.{name}" for name in (*table.replaced_together, ARTIFACT_KEY))
    for number, name in enumerate(names):
        connection.execute(
            f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {name}.{table.name} AS t"
            f" SEMI JOIN (FROM groups WHERE place = 1 AND source = {number}) AS g ON {same}"
        )
    connection.execute(
        "UPDATE loaded_parts SET superseded = true WHERE starts_with(part, $prefix)"
        " AND artifact_key IN (SELECT artifact_key FROM groups WHERE artifact_key <> last)",
        {"prefix": f"{table.name}/"},
    )
    mark(connection, table.name, f"FROM {table.name}")
