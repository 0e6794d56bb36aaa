"""Whether rows are what they were made from: the Parquet files of artifacts, and the tables that others are derived from.

DuckDB's hash of a row stands for its values. Sums of hashes are compared, so that nothing is sorted and little is kept; only where
they differ are the rows found that do.
"""

import random
from contextlib import suppress
from itertools import islice

from cltdb.database.derived import definition, is_stale
from cltdb.database.literals import path_literal, quoted
from cltdb.database.parts import Loaded, artifact_parts, loaded_parts, made_when, other_artifacts, read_chunks
from cltdb.database.problem import found
from cltdb.database.tables import derived_tables, loaded_tables
from cltdb.engine.integrity import checked, remedy
from cltdb.errors import CltdbError

SMALL_BYTES = 50_000_000
"""Of an artifact's Parquet files of one table that are larger together, some rows are compared; with `full` all."""
SMALL_GROUP = 1_000_000
"""Rows of a dictionary that are compared at once; of more, a layer at a time."""
LAYERS_SHARE = 4
"""One in so many of these layers is compared, drawn anew each time; with `full` all."""


# Tables that are derived from others


def against_tables(connection, *, full):
    """What is wrong with the derived tables: of large ones in some layers, with `full` in all."""
    if is_stale(connection):
        yield "stale_groups: tables that are made from others are to be made anew, which the next load does"
        return
    for name, table in derived_tables().items():
        layer = table.replaced_together[1]
        made = f"SELECT {_cast(table.columns, table.column_names)} FROM ({definition(name)})"
        there = (
            f"SELECT {', '.join(table.column_names)} FROM {name} WHERE dict_id = $dict_id AND {layer} BETWEEN $first AND $last"
        )
        for group in _groups(connection, name, full):
            yield from _difference(connection, table, there, made, f"rows as {name}.sql makes them", group)


def _groups(connection, name, full):
    """The dictionaries, whole or some layers one by one, as {dict_id, first, last}."""
    for dict_id, n_layers, n_rows in connection.execute(
        "SELECT dict_id, max(n_layers), sum(n) FROM (SELECT dict_id, least(n_layers, (SELECT max(layer) + 1 FROM features)) AS n_layers, 0 AS n"
        " FROM dictionaries"
        f" UNION ALL SELECT dict_id, NULL, count(*) FROM {name} GROUP BY dict_id) GROUP BY dict_id ORDER BY dict_id"
    ).fetchall():
        if n_rows <= SMALL_GROUP:
            yield {"dict_id": dict_id, "first": 0, "last": 2**31 - 1}
        else:
            layers = range(n_layers or 0)
            drawn = layers if full else sorted(random.sample(layers, -(-len(layers) // LAYERS_SHARE)))
            yield from ({"dict_id": dict_id, "first": layer, "last": layer} for layer in drawn)


# Artifacts


def against_artifacts(connection, artifacts, *, full):
    """What the database lacks or has otherwise than `artifacts`, (key, directory) pairs: of small ones and with `full` everything, else
    a piece of each table."""
    made_at = dict(connection.execute("SELECT artifact_key, made_at FROM loaded_artifacts").fetchall())
    for key, directory in artifacts:
        try:
            parts, now = artifact_parts(directory), made_when(directory)
        except CltdbError as error:
            yield str(error)
            continue
        [loaded] = loaded_parts(connection, key)
        if parts and not loaded:  # `not_loaded` says it
            continue
        lacking = {part.table: problem for part in parts if (problem := _lacks(part, loaded))}
        yield from sorted(lacking.values())
        known = {part.name for part in parts}
        yield from (
            f"loaded_parts: {name} of artifact {key}, which has no such file in {directory}"
            for name in loaded
            if name not in known
        )
        if loaded and made_at.get(key) not in ("", None, now):
            yield f"artifact {key} was made again at {now}; its rows are of {made_at[key]}"
            continue
        for name in dict.fromkeys(part.table for part in parts if part.table not in lacking):
            of_table = [part for part in parts if part.table == name]
            yield from _as_far_as_readable(_against_artifact(connection, loaded_tables()[name], key, of_table, full), directory)


def not_loaded(connection, artifacts):
    """A sentence on each of those `artifacts`, (key, directory) pairs, of which nothing is loaded, such as one that was
    made again by itself."""
    for key, directory in artifacts:
        with suppress(CltdbError):  # which `against_artifacts` says
            if artifact_parts(directory) and not loaded_parts(connection, key)[0]:
                yield (
                    f"{directory} is not loaded, and what refers to its rows refers to nothing; do this: `cltdb run SPEC`, whose stage database loads "
                    "what `--only` made by itself, or `cltdb db rebuild`"
                )


def _lacks(part, loaded):
    """Why the rows of a part cannot be compared: a file that is damaged or not loaded; empty where they can. loaded: {part: Loaded}."""
    try:
        path = checked(part.path)
    except CltdbError as error:
        return str(error)
    return "" if loaded.get(part.name, Loaded()).complete else f"{path} is not loaded"


def _as_far_as_readable(problems, directory):
    """The problems, and a sentence where a file of the artifact cannot be read."""
    import duckdb

    try:
        yield from problems
    except duckdb.Error as error:
        if str(directory) not in str(error):
            raise
        yield f"{directory}: found a file that cannot be read ({str(error).splitlines()[0]}); expected Parquet; do this: {remedy(directory)}"


def _against_artifact(connection, table, key, parts, full):
    directory = parts[0].path.parents[2]
    columns = table.artifact_columns
    there = f"SELECT {', '.join(column.name for column in columns)} FROM {table.name} WHERE artifact_key = {quoted(key)}"
    is_whole = full or sum(part.path.stat().st_size for part in parts) <= SMALL_BYTES
    source, names = _written(connection, parts) if is_whole else _sample(connection, parts)
    written = f"SELECT {_cast(columns, names)} FROM {source}"
    _, later = other_artifacts(connection, table.name, key)
    if later:
        group = ", ".join(table.replaced_together)
        held = f"SELECT DISTINCT {group} FROM {table.name} WHERE artifact_key IN ({', '.join(map(quoted, later))})"
        written += f" ANTI JOIN ({held}) USING ({group})"
    if is_whole:
        yield from _difference(connection, table, there, written, f"the rows of {directory}")
    else:
        same_key = " AND ".join(f"t.{name} IS NOT DISTINCT FROM {f's.{name}' if name in names else 'NULL'}" for name in table.key)
        there = (
            f"SELECT * FROM ({there} AND {_near(connection, table, source, names)}) AS t SEMI JOIN {source} AS s ON {same_key}"
        )
        yield from _lacking(connection, table, written, there, f"the rows of {directory}")
    connection.execute("DROP TABLE IF EXISTS temp.written")


def _near(connection, table, source, names):
    """SQL that is true of the rows whose key is between those of a source: DuckDB passes over row groups that have none."""
    conditions = ["true"]
    for name in (column for column in table.key if column in names):
        least, most, n_null = connection.execute(
            f"SELECT min({name}), max({name}), count(*) - count({name}) FROM {source}"
        ).fetchone()
        if not n_null and least is not None:
            conditions.append(f"{name} BETWEEN {quoted(least)} AND {quoted(most)}")
    return " AND ".join(conditions)


def _written(connection, parts):
    """(what the rows of parts are selected from, names of its columns)."""
    if any(part.path.parent.name != part.table for part in parts):
        return _kept(connection, read_chunks([(part, 0) for part in parts]))
    paths = ", ".join(path_literal(part.path) for part in parts)
    source = f"read_parquet([{paths}], union_by_name = true)"
    return source, [column[0] for column in connection.execute(f"SELECT * FROM {source} LIMIT 0").description]


def _sample(connection, parts):
    """As `_written`, of the rows from a random one on that are read at once."""
    import pyarrow.parquet as pq

    n_rows = [pq.read_metadata(part.path).num_rows for part in parts]
    [part] = random.choices(parts, weights=n_rows)
    return _kept(connection, islice(read_chunks([(part, random.randrange(n_rows[parts.index(part)]))]), 1))


def _kept(connection, chunks):
    """The rows of chunks in a temporary table: (its name, names of its columns)."""
    for number, chunk in enumerate(chunks):
        connection.register("incoming", chunk.rows)
        connection.execute(
            "INSERT INTO written BY NAME FROM incoming" if number else "CREATE TEMP TABLE written AS FROM incoming"
        )
        connection.unregister("incoming")
        names = chunk.rows.column_names
    return "written", names


# Two queries of the same columns


def _difference(connection, table, there, ought, expected, params=None):
    """The Problem of the rows in which `there`, a query of rows of the table, is not `ought`."""
    counted = [f"SELECT {number}, count(*), sum(hash(t)) FROM ({sql}) AS t" for number, sql in enumerate((there, ought))]
    sums = [rest for _, *rest in sorted(connection.execute(" UNION ALL ".join(counted), params).fetchall())]
    if sums[0] != sums[1]:
        problems = [
            *_lacking(connection, table, ought, there, expected, params),
            *_lacking(connection, table, there, ought, expected, params),
        ]
        yield from problems[:1] or [
            f"{table.name}: {sums[0][0]:,} rows, some of them several times; expected {sums[1][0]:,}, {expected}"
        ]


def _lacking(connection, table, one, other, expected, params=None):
    """The Problem of the rows of query `one` that `other` lacks or has with other values."""
    key = ", ".join(table.key)
    sql = f"SELECT {key} FROM (SELECT {key}, hash(t) AS h FROM ({one}) AS t) ANTI JOIN (SELECT hash(t) AS h FROM ({other}) AS t) USING (h)"
    yield from found(connection, table.name, sql, expected, params)


def _cast(columns, names):
    """What selects columns in the types of their table; those that are not among `names` are NULL."""
    return ", ".join(f"{column.name if column.name in names else 'NULL'}::{column.type} AS {column.name}" for column in columns)
