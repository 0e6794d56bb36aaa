"""Run records of a workspace, dicts with the columns of tables experiments and stage_runs, beside the rows of these tables."""

import json

from cltdb.database.parts import timestamp
from cltdb.database.problem import found
from cltdb.database.tables import all_tables


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
    """Problems of rows that are not as the records have them. Runs go on while one looks: those that had not ended when either was written are
    left out, and so are records that are newer than every run of the database. An experiment that another machine began earlier has that time in a
    merged database."""
    if experiments:
        sql = f"""SELECT t.experiment, t.spec_hash FROM experiments AS t JOIN ({select_records(connection, "experiments", experiments)}) AS r
            USING (experiment, spec_hash)
            WHERE t.spec_yaml IS DISTINCT FROM r.spec_yaml OR t.sweep <> r.sweep OR t.swept <> r.swept OR t.created_at > r.created_at"""
        yield from found(
            connection,
            "experiments",
            sql,
            "spec_yaml, sweep and swept as in the record of the workspace, and a created_at that is not later",
        )
    if stage_runs:
        sql = f"""SELECT r.run_id, t.run_id IS NOT NULL AS is_there FROM ({select_records(connection, "stage_runs", stage_runs)}) AS r
            LEFT JOIN stage_runs AS t USING (run_id) WHERE r.status <> 'running' AND t.status IS DISTINCT FROM 'running'
            AND r.started_at < (SELECT max(started_at) FROM stage_runs) AND hash(r) <> hash(t)"""
        yield from found(connection, "stage_runs", sql, "a row as each record of the workspace has it")
