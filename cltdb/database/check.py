"""What is wrong with a database: `cltdb db check`.

Asked are the schema (keys, references, ranges, finite numbers), rules.py, questions.py, the record of what is loaded, and whether rows are those that
artifacts, other tables (sources.py), records of the workspace (records.py) and changes by users (annotated.py) give.
"""

import re
from collections import defaultdict

from cltdb.database.annotated import against_events
from cltdb.database.literals import quoted
from cltdb.database.problem import found
from cltdb.database.questions import QUESTIONS
from cltdb.database.records import against_records
from cltdb.database.rules import FACTS, RULES, Rule
from cltdb.database.sources import against_artifacts, against_tables
from cltdb.database.store import connect
from cltdb.database.tables import all_tables, declared_shapes, loaded_tables, shapes
from cltdb.database.words import against_texts, changed_words
from cltdb.database.workbench import filled, workbench

SMALL_ROWS = 1_000_000
"""Slow rules are asked of larger tables with `full` alone."""
LIST = re.compile(r"\[\d*\]$")
"""How the type of a list ends, or of an array."""


def check(path, *, artifacts=(), events=(), experiments=(), stage_runs=(), full=False):
    """What is wrong with the database, one sentence each; empty where nothing is.

    artifacts: (key, directory) pairs that ought to be loaded; events: those of the logs of users; experiments, stage_runs: records of the
    workspace. full: also slow questions of large tables, all of their values, and what search knows of words.
    """
    with workbench(inspected=path) as connection:
        connection.execute("USE inspected")
        if misshapen := list(_misshapen(connection)):  # of which nothing else can be asked
            return misshapen
        for column, facts in FACTS.items():
            connection.execute(f"CREATE TEMP VIEW facts_by_{column} AS {facts}")
        tables = [all_tables()[name] for name in filled(connection, [t.name for t in all_tables().values() if not t.is_view])]
        problems = [
            *_missing_comments(connection),
            *_duplicates(connection, tables),
            *_orphans(connection, tables),
            *_broken_rules(connection, tables, full),
            *_answers(connection, full),
            *_records(connection, tables),
            *against_tables(connection),
            *(f"words: those of dictionary {dict_id} are not made from what is loaded" for dict_id in changed_words(connection)),
            *(against_texts(connection) if full else ()),
            *against_records(connection, experiments, stage_runs),
            *against_artifacts(connection, artifacts, full=full),
            *against_events(connection, events),
        ]
        return [str(problem) for problem in problems]


def read_all(path):
    """Reads every value of every table; CltdbError where the file is damaged."""
    with connect(path) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY ALL").fetchall():
            connection.execute(f"SELECT max(hash(COLUMNS(*))) FROM {table}").fetchall()


# What the schema declares.


def _misshapen(connection):
    """Tables, views and columns that are gone or otherwise than the schema makes them."""
    there = shapes(connection, "inspected")
    for (name, column), shape in declared_shapes().items():
        place = name if column is None else f"{name}.{column}"
        found = there.get((name, column))
        if found is None and (column is None or (name, None) in there):
            yield f"{place} is gone"
        elif found is not None and found != shape:
            yield f"{place} is {found}; expected {shape}" if column else f"{place} is another one than the schema makes"


def _missing_comments(connection):
    bare = connection.execute(
        "SELECT table_name || '.' || column_name, database_name, comment FROM duckdb_columns() WHERE NOT internal"
        " UNION ALL SELECT table_name, database_name, comment FROM duckdb_tables() WHERE NOT internal"
        " UNION ALL SELECT view_name, database_name, comment FROM duckdb_views() WHERE NOT internal ORDER BY 1"
    ).fetchall()
    return [f"{name} has no comment" for name, database, comment in bare if database == "inspected" and not comment]


def _duplicates(connection, tables):
    for table in tables:
        if table.key:
            key = ", ".join(table.key)
            sql = f"SELECT {key}, count(*) AS n FROM {table.name} GROUP BY {key} HAVING count(*) > 1"
            yield from found(connection, table.name, sql, "one row of each key")


def _orphans(connection, tables):
    """Rows that refer to what is not there. Rows of an unfinished artifact may: what they refer to comes when it is finished."""
    unfinished = "(SELECT artifact_key FROM loaded_artifacts WHERE made_at = '')"
    for table in tables:
        for reference in table.references:
            pairs = list(zip(reference.columns, reference.other_columns, strict=True))
            present = [f"t.{column} IS NOT NULL" for column in reference.columns]
            if table.is_loaded:
                present.append(f"coalesce(t.artifact_key, '') NOT IN {unfinished}")
            names = ", ".join(f"t.{column}" for column in dict.fromkeys((*table.key, *reference.columns)))
            sql = (
                f"SELECT {names} FROM {table.name} AS t ANTI JOIN {reference.table} AS r"
                f" ON {' AND '.join(f'r.{other} = t.{own}' for own, other in pairs)} WHERE {' AND '.join(present)}"
            )
            yield from found(connection, table.name, sql, f"{', '.join(reference.columns)} of a row of {reference.table}")


def _declared(column):
    """Rules of a single column: finite numbers, and what its comment declares."""
    name = column.name
    element, n_lists = LIST.subn("", column.type)
    low_end, high_end = (f"list_min({name})", f"list_max({name})") if n_lists else (name, name)
    if element in ("FLOAT", "DOUBLE"):  # NaN is larger than all numbers
        yield Rule(f"isfinite({low_end}) AND isfinite({high_end})", f"a finite {name}")
    if column.bounds:
        low, high = column.bounds
        bounds = [f"{low_end} >= {low} - 1e-6"] if low is not None else []
        bounds += [f"{high_end} <= {high} + 1e-6"] if high is not None else []
        yield Rule(" AND ".join(bounds), f"{name} {f'from {low:g} to {high:g}' if high is not None else f'of at least {low:g}'}")
    if column.choices:
        yield Rule(f"{name} IN ({', '.join(map(quoted, column.choices))})", f"{name} one of {', '.join(column.choices)}")


# rules.py and questions.py


def _is_small(connection, table):
    return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] <= SMALL_ROWS


def _broken_rules(connection, tables, full):
    """Rows for which a rule does not hold; all rules of a table are asked in one scan."""
    for table in tables:
        rules = [rule for column in table.columns for rule in _declared(column)] + list(RULES.get(table.name, ()))
        if not full and any(rule.slow for rule in rules) and not _is_small(connection, table.name):
            rules = [rule for rule in rules if not rule.slow]
        if not rules:
            continue
        source = table.name
        if known := [column for column in FACTS if column in table.column_names]:
            source += f" LEFT JOIN facts_by_{known[0]} USING ({known[0]})"
        counts = ", ".join(f"count(*) FILTER (({rule.condition}) IS FALSE)" for rule in rules)
        for rule, n in zip(rules, connection.execute(f"SELECT {counts} FROM {source}").fetchone(), strict=True):
            if n:
                asked = re.findall(r"\w+", rule.condition)
                names = [name for name in table.column_names if name in table.key or name in asked]
                sql = f"SELECT {', '.join(names)} FROM {source} WHERE ({rule.condition}) IS FALSE"
                yield from found(connection, table.name, sql, rule.expected)


def _answers(connection, full):
    for question in QUESTIONS:
        if full or not question.slow or _is_small(connection, question.table):
            yield from found(connection, question.table, question.sql, question.expected)


# The record of what is loaded.


def _records(connection, tables):
    """Parts that are partly loaded, rows of artifacts of which no part is recorded, and tables that have more or fewer rows of an artifact than
    were loaded; artifacts of which rows were replaced cannot be counted."""
    for key, part in connection.execute("SELECT artifact_key, part FROM loaded_parts WHERE NOT complete ORDER BY ALL").fetchall():
        yield f"loaded_parts: {part} of artifact {key} is only partly loaded"
    there, recorded = _rows_by_artifact(connection, [table.name for table in tables if table.is_loaded]), defaultdict(dict)
    for table, key, n, is_replaced in connection.execute(
        "SELECT split_part(part, '/', 1) AS table_name, artifact_key, sum(rows)::BIGINT, bool_or(superseded) FROM loaded_parts"
        " GROUP BY ALL ORDER BY artifact_key"
    ).fetchall():
        recorded[table][key] = n, is_replaced
    for table, rows in there.items():
        for key in sorted(key for key in rows if key is not None and key not in recorded[table]):
            yield f"{table}: rows of artifact {key}, of which no part is recorded"
    for table in loaded_tables():
        for key, (loaded, is_replaced) in recorded[table].items():
            n = there.get(table, {}).get(key, 0)
            if not is_replaced and loaded != n:
                yield f"{table}: {n:,} rows of artifact {key}, of which {loaded:,} were loaded"


def _rows_by_artifact(connection, names):
    """{table: {artifact key: its rows}} of tables that hold rows of artifacts."""
    rows = {name: {} for name in names}
    asked = " UNION ALL ".join(f"SELECT '{name}', artifact_key, count(*) FROM {name} GROUP BY artifact_key" for name in names)
    for name, key, n in connection.execute(asked).fetchall() if names else ():
        rows[name][key] = n
    return rows
