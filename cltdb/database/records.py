"""Run records of a workspace, dicts with the columns of tables experiments and stage_runs, beside the rows of these tables."""

import json

from cltdb.database.parts import timestamp
from cltdb.database.problem import found
from cltdb.database.tables import all_tables

LOADS = "database"
"""The stage after which all records are brought in."""
SETTLED_S = 60
"""So long after it has ended they are."""
MARGIN_S = 2
"""A record is written so long after its run has ended, at most."""


def select_records(connection, table, records):
    """SQL of the rows of a table that are made of records, whose missing fields are NULL."""
    import pyarrow as pa

    columns = all_tables()[table].columns
    rows = {column.name: [_value(record.get(column.name), column.type) for record in records] for column in columns}
    connection.register(f"records_of_{table}", pa.table(rows))
    names = ", ".join(f"{column.name}::{column.type} AS {column.name}" for column in columns)
    return f"SELECT {names} FROM records_of_{table}"


def _value(value, type):
    if type == "TIMESTAMP":
        return timestamp(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def against_records(connection, experiments, stage_runs):
    """Problems of rows that are not as the records have them. Runs go on while one looks, and a run that was killed has not brought its last records
    in: asked are those that had ended when a run that the database has began, or one that loaded the database had ended. An experiment that another
    machine began earlier has that time in a merged database."""
    if not experiments and not stage_runs:
        return
    connection.execute(f"""CREATE OR REPLACE TEMP TABLE recorded_runs AS
        SELECT *, started_at + to_microseconds((seconds * 1e6)::BIGINT) AS ended_at FROM ({select_records(connection, "stage_runs", stage_runs)})""")
    connection.execute(f"""CREATE OR REPLACE TEMP TABLE up_to AS
        SELECT (SELECT max(t.started_at) FROM stage_runs AS t SEMI JOIN recorded_runs USING (run_id)) AS a_start,
               (SELECT max(ended_at) FROM recorded_runs WHERE stage = '{LOADS}' AND status = 'done'
                   AND ended_at < now()::TIMESTAMP - INTERVAL {SETTLED_S} SECOND) AS a_load""")
    if experiments:
        goes_on = any(
            record["status"] == "running" for record in stage_runs
        )  # which may be the first of a sweep of a spec that was known
        sql = f"""SELECT r.experiment, r.spec_hash, t.experiment IS NOT NULL AS is_there
            FROM ({select_records(connection, "experiments", experiments)}) AS r LEFT JOIN experiments AS t USING (experiment, spec_hash), up_to
            WHERE if(t.experiment IS NULL, r.created_at < greatest(a_start, a_load), t.spec_yaml IS DISTINCT FROM r.spec_yaml OR t.sweep <> r.sweep
                OR t.swept <> r.swept OR r.sweep IS NOT NULL AND t.sweep IS NULL AND {not goes_on} OR coalesce(t.created_at, 'infinity') > r.created_at)"""
        yield from found(
            connection,
            "experiments",
            sql,
            "a row as each record of the workspace has it, with a created_at that is not later",
        )
    columns = all_tables()["stage_runs"].column_names
    unlike = " OR ".join(f"r.{column} IS DISTINCT FROM t.{column}" for column in columns)
    margin = f"INTERVAL {MARGIN_S} SECOND"
    sql = f"""SELECT r.run_id, t.run_id IS NOT NULL AS is_there FROM recorded_runs AS r LEFT JOIN stage_runs AS t USING (run_id), up_to
        WHERE r.status <> 'running' AND ({unlike}) AND
            if(t.status = 'running', r.ended_at <= greatest(a_start, a_load) - {margin}, r.started_at < a_start OR r.ended_at <= a_load)"""
    yield from found(connection, "stage_runs", sql, "a row as each record of the workspace has it")
