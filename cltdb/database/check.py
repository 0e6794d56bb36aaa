"""What is wrong with a database: `cltdb db check`.

Asked are the schema (keys, references, ranges, finite numbers), rules.py, questions_of_features.py, questions_of_graphs.py, the record of what is
loaded, and whether rows are those that artifacts, other tables (sources.py), records of the workspace (records.py) and changes by users (annotated.py) give.
"""

import random
import re
from collections import defaultdict
from contextlib import contextmanager, nullcontext
from pathlib import Path

from cltdb.database.annotated import MADE, against_events
from cltdb.database.folder import described
from cltdb.database.literals import identifier, quoted
from cltdb.database.outdated import connect_to_ask
from cltdb.database.problem import TOGETHER, found, found_in_each, unanswered, unreckoned
from cltdb.database.proofs import count_numbered, keys_that_may_stand_twice, refers_to_numbers
from cltdb.database.questions_of_features import QUESTIONS as OF_FEATURES
from cltdb.database.questions_of_graphs import QUESTIONS as OF_GRAPHS
from cltdb.database.records import against_records
from cltdb.database.rules import FACTS, IMPORTED, MAY_LACK, RULES, SOURCES, Rule
from cltdb.database.sources import against_artifacts, against_tables, not_loaded
from cltdb.database.tables import all_tables, declared_shapes, loaded_tables, shapes
from cltdb.database.words import against_texts, changed_words
from cltdb.database.workbench import filled, workbench

MEMORY_BYTES = 2_400_000_000
"""DuckDB's, which keeps what it has read until that is full: the process takes half a gigabyte more, and at most as much as a reader."""
SMALL_ROWS = 500_000
"""Slow rules are asked of a piece of larger tables, with `full` of all."""
PIECES = 20
"""Of so many pieces of the graphs one is looked at."""
LIST = re.compile(r"\[\d*\]$")
"""How the type of a list ends, or of an array."""


def check(path, *, artifacts=(), events=(), experiments=(), stage_runs=(), full=False):
    """What is wrong with the database, or with an exported folder, one sentence each; empty where nothing is.

    artifacts: (key, directory) pairs that ought to be loaded; events: those of the logs of users; experiments, stage_runs: records of the
    workspace. full: also slow questions of large tables, all of their values, and what search knows of words.
    """
    is_folder = Path(path).is_dir()
    with workbench(memory_bytes=MEMORY_BYTES, inspected=path) as connection:
        connection.execute("USE inspected")
        if not is_folder and (misshapen := list(_misshapen(connection))):  # of which nothing else can be asked
            return misshapen
        for column, facts in FACTS.items():
            connection.execute(f"CREATE TEMP VIEW facts_by_{column} AS {facts}")
        tables = [all_tables()[name] for name in filled(connection, [t.name for t in all_tables().values() if not t.is_view])]
        large = _large_tables(connection, described(path) if is_folder else {})
        count_numbered(connection, large)
        return _sentences(
            not_loaded(connection, artifacts),
            () if is_folder else _other_comments(connection),
            _duplicates(connection, tables, large),
            _orphans(connection, tables, large),
            _broken_rules(connection, tables, large, full),
            _answers(connection, tables, large, full),
            _records(connection, tables),
            against_tables(connection, full=full),
            (f"words: those of dictionary {dict_id} are not made from what is loaded" for dict_id in changed_words(connection)),
            against_texts(connection) if full else (),
            against_records(connection, experiments, stage_runs),
            against_artifacts(connection, artifacts, full=full),
            against_events(connection, events),
        )


def _sentences(*parts):
    """What the parts of a check say. Damage may keep a later part from being asked, such as rows that stand twice one that expects a single one."""
    said, stopped = [], []
    for part in parts:
        try:
            said += map(str, part)
        except unanswered() as error:
            stopped.append(error)
    if stopped and not said:
        raise stopped[0]
    return said + [
        f"what is said above keeps more from being asked ({str(error).splitlines()[0]}); mend it and check again"
        for error in stopped
    ]


def read_all(path):
    """Reads every value of every table; CltdbError where the file is damaged."""
    with connect_to_ask(path) as connection:
        found = connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal ORDER BY ALL"
        ).fetchall()
        for names in found:
            connection.execute(f"SELECT max(hash(COLUMNS(*))) FROM {identifier(*names)}").fetchall()


# What the schema declares.


def _large_tables(connection, exported):
    """exported: what an exported folder says of its tables."""
    sql = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'inspected' AND estimated_size > ?"
    found = {name for (name,) in connection.execute(sql, [SMALL_ROWS]).fetchall()}
    return found | {name for name, written in exported.items() if written["rows"] > SMALL_ROWS}


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


def _other_comments(connection):
    """Tables, views and columns that have no comment, or another one than the schema gives. Those that a user has made are the user's."""
    within = "WHERE database_name = 'inspected' AND schema_name = 'main' AND NOT internal"
    there = connection.execute(
        f"SELECT table_name || '.' || column_name AS name, comment FROM duckdb_columns() {within}"
        f" UNION ALL SELECT table_name, comment FROM duckdb_tables() {within}"
        f" UNION ALL SELECT view_name, comment FROM duckdb_views() {within} ORDER BY name"
    ).fetchall()
    declared = {table.name: table.comment for table in all_tables().values()}
    declared |= {f"{table.name}.{column.name}": column.comment for table in all_tables().values() for column in table.columns}
    for name, comment in there:
        if name.partition(".")[0] not in declared:
            continue
        if not comment:
            yield f"{name} has no comment"
        elif comment != declared.get(name, comment):
            yield f"{name} has another comment than the schema gives"


def _found(connection, asked):
    """The Problems of (whether it is asked alone, as large tables are, what `found` takes) pairs."""
    yield from found_in_each(connection, [one for is_alone, one in asked if not is_alone])
    for one in (one for is_alone, one in asked if is_alone):
        yield from found(connection, *one)


def _duplicates(connection, tables, large):
    asked = []
    for table in (table for table in tables if table.key):
        where = keys_that_may_stand_twice(connection, table) if table.name in large else "true"
        if where != "false":
            key = ", ".join(table.key)
            sql = f"SELECT {key}, count(*) AS n FROM {table.name} WHERE {where} GROUP BY {key} HAVING count(*) > 1"
            asked.append((table.name in large, (table.name, sql, "one row of each key")))
    yield from _found(connection, asked)


def _orphans(connection, tables, large):
    """Rows that refer to what is not there. Rows of an unfinished artifact may: what they refer to comes when it is finished."""
    unfinished, asked = "(SELECT artifact_key FROM loaded_artifacts WHERE made_at = '')", []
    for table in tables:
        for reference in table.references:
            if table.name in large and refers_to_numbers(connection, table, reference):
                continue
            pairs = list(zip(reference.columns, reference.other_columns, strict=True))
            present = [f"t.{column} IS NOT NULL" for column in reference.columns]
            if table.is_loaded:
                present.append(f"coalesce(t.artifact_key, '') NOT IN {unfinished}")
            names = ", ".join(f"t.{column}" for column in dict.fromkeys((*table.key, *reference.columns)))
            sql = (
                f"SELECT {names} FROM {table.name} AS t ANTI JOIN {reference.table} AS r"
                f" ON {' AND '.join(f'r.{other} = t.{own}' for own, other in pairs)} WHERE {' AND '.join(present)}"
            )
            expected = f"{', '.join(reference.columns)} of a row of {reference.table}"
            asked.append((not large.isdisjoint((table.name, reference.table)), (table.name, sql, expected)))
    yield from _found(connection, asked)


def _declared(table, column):
    """Rules of a single column: finite numbers, and what its comment declares. Where it does not say what NULL means, an artifact has a value in every
    row, or an earlier one in none."""
    name = column.name
    if table.is_loaded and "NULL" not in column.comment and name not in MAY_LACK.get(table.name, ()):
        yield Rule(f"{name} IS NOT NULL", f"a value as {name}, which other rows of the artifact have", of_artifact=name)
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


# rules.py and questions


def _broken_rules(connection, tables, large, full):
    """Rows for which a rule does not hold; all rules of a table are asked in one scan, small tables together."""
    rules = {t: [rule for column in t.columns for rule in _declared(t, column)] + list(RULES.get(t.name, ())) for t in tables}
    small = [(table, of_table) for table, of_table in rules.items() if of_table and table.name not in large]
    for start in range(0, len(small), TOGETHER):
        yield from _where_broken(connection, small[start : start + TOGETHER])
    for table in (table for table in tables if table.name in large):
        slow = [] if full else [rule for rule in rules[table] if rule.slow]
        yield from _where_broken(connection, [(table, [rule for rule in rules[table] if rule not in slow])])
        if slow:
            with _a_piece(connection, [table]):
                yield from _where_broken(connection, [(table, slow)])


def _where_broken(connection, asked):
    """asked: (table, its rules) pairs."""
    counts = " UNION ALL ".join(
        f"SELECT {number}, [{', '.join(map(_counted, rules))}] FROM {_source(table)}"
        for number, (table, rules) in enumerate(asked)
    )
    try:
        counted = sorted(connection.execute(counts).fetchall())
    except unanswered() as error:
        alone = [(table, rule) for table, rules in asked for rule in rules]
        for table, rule in alone if len(alone) > 1 else ():
            yield from _where_broken(connection, [(table, [rule])])
        if len(alone) == 1:
            yield unreckoned(alone[0][0].name, error, alone[0][1].expected)
        return
    for number, found_of_table in counted:
        table, rules = asked[number]
        for rule, n in zip(rules, found_of_table, strict=True):
            if n:
                words = re.findall(r"\w+", rule.condition)
                names = [name for name in table.column_names if name in table.key or name in words]
                sql = f"SELECT {', '.join(names)} FROM {_source(table)} WHERE ({rule.condition}) IS FALSE"
                if rule.of_artifact:
                    having = f"(SELECT artifact_key FROM {table.name} GROUP BY ALL HAVING count({rule.of_artifact}) > 0)"
                    sql += f" AND artifact_key IN {having} AND artifact_key NOT IN {IMPORTED}"
                yield from found(connection, table.name, sql, rule.expected)


def _counted(rule):
    """SQL of how many rows break a rule."""
    return f"count(*) - count({rule.of_artifact})" if rule.of_artifact else f"count(*) FILTER (({rule.condition}) IS FALSE)"


def _source(table):
    """SQL of the rows of a table with the facts that its rules use."""
    source = SOURCES.get(table.name, table.name)
    known = [column for column in FACTS if column in table.column_names]
    return source + (f" LEFT JOIN facts_by_{known[0]} USING ({known[0]})" if known else "")


def _answers(connection, tables, large, full):
    by_name = {table.name: table for table in tables}
    read = {
        question: [table for name, table in by_name.items() if re.search(rf"\b{name}\b", question.sql)]
        for question in OF_FEATURES + OF_GRAPHS
        if question.table in by_name
    }
    of_large = [question for question, of_question in read.items() if any(table.name in large for table in of_question)]
    yield from found_in_each(connection, [(one.table, one.sql, one.expected) for one in read if one not in of_large])
    for question in of_large:
        if question.proof and question.proof(connection):
            continue
        with _a_piece(connection, read[question]) if question.slow and not full else nullcontext(True) as is_asked:
            if is_asked:
                yield from found_in_each(connection, [(question.table, question.sql, question.expected)])


@contextmanager
def _a_piece(connection, tables):
    """Within the block, tables hold the rows of one layer alone, or of some graphs, another piece each time. Gives whether they all have such pieces."""
    n_layers = connection.execute("SELECT max(n_layers) FROM inspected.dictionaries").fetchone()[0] or 1
    layer, part = random.randrange(n_layers), random.randrange(PIECES)
    pieces = {"layer": f"layer = {layer}", "graph_id": f"hash(graph_id) % {PIECES} = {part}"}
    column = next((one for one in pieces if all(one in table.column_names for table in tables)), None)
    if column is None:
        yield False
        return
    for table in tables:
        connection.execute(f"CREATE TEMP VIEW {table.name} AS FROM inspected.main.{table.name} WHERE {pieces[column]}")
    try:
        yield True
    finally:
        for table in tables:
            connection.execute(f"DROP VIEW temp.{table.name}")


# The record of what is loaded.


def _records(connection, tables):
    """Parts that are partly loaded, rows of artifacts of which no part is recorded, and tables that have more or fewer rows of an artifact than
    were loaded. Of artifacts of which rows were replaced there are fewer, and rows of a later one."""
    for key, part in connection.execute("SELECT artifact_key, part FROM loaded_parts WHERE NOT complete ORDER BY ALL").fetchall():
        yield f"loaded_parts: {part} of artifact {key} is only partly loaded"
    yield from found(
        connection,
        "loaded_parts",
        "SELECT artifact_key, split_part(part, '/', 1) AS of_table, min(superseded) AS least, max(superseded) AS most FROM loaded_parts"
        " GROUP BY ALL HAVING min(superseded) < max(superseded)",
        "the same superseded in all parts of a table",
    )
    made_at = dict(connection.execute("SELECT artifact_key, made_at FROM loaded_artifacts").fetchall())
    there, recorded = _rows_by_artifact(connection, [table.name for table in tables if table.is_loaded]), defaultdict(dict)
    for table, key, n, is_replaced in connection.execute(
        "SELECT split_part(part, '/', 1) AS table_name, artifact_key, sum(rows)::BIGINT, bool_or(superseded) FROM loaded_parts"
        " GROUP BY ALL ORDER BY artifact_key"
    ).fetchall():
        recorded[table][key] = n, is_replaced
    for table, rows in there.items():
        if rows.get(None) and table not in MADE:
            yield f"{table}: rows of no artifact"
        for key in sorted(key for key in rows if key is not None and key not in recorded[table]):
            yield f"{table}: rows of artifact {key}, of which no part is recorded"
    for table in loaded_tables():
        for key, (loaded, is_replaced) in recorded[table].items():
            n = there.get(table, {}).get(key, 0)
            if not is_replaced and loaded != n:
                yield f"{table}: {n:,} rows of artifact {key}, of which {loaded:,} were loaded"
            elif is_replaced and not any(
                (made_at.get(other, ""), other) > (made_at.get(key, ""), key) for other in there.get(table, {}) if other
            ):
                yield f"loaded_parts: superseded is true of {table} of artifact {key}; expected a later artifact with rows there"
            elif is_replaced and loaded <= n:
                yield f"loaded_parts: superseded is true of {table} of artifact {key}, of which all {loaded:,} rows are there; expected fewer"


def _rows_by_artifact(connection, names):
    """{table: {artifact key: its rows}} of tables that hold rows of artifacts."""
    rows = {name: {} for name in names}
    asked = " UNION ALL ".join(f"SELECT '{name}', artifact_key, count(*) FROM {name} GROUP BY artifact_key" for name in names)
    for name, key, n in connection.execute(asked).fetchall() if names else ():
        rows[name][key] = n
    return rows
