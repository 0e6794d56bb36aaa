"""`cltdb db export`: every table as Parquet files, which other programs read and `cltdb sql --from` asks as it asks the database.

Rows are in the order of the table, a file a folder; DuckDB writes them as it reads them, so memory does not grow with the table.
"""

import os
import shutil
from pathlib import Path
from urllib.parse import quote

from cltdb.database import store
from cltdb.database.folder import DESCRIPTION, exported_tables, measured
from cltdb.database.literals import quoted
from cltdb.database.workbench import workbench
from cltdb.engine import integrity
from cltdb.engine.workspace import ELSEWHERE, explain_full_disk, write_json
from cltdb.errors import CltdbError

ROW_GROUP = 16384
"""Rows of a row group: what is read at least to find one row."""


def export(path, directory):
    """Writes every table of the database at `path` to `directory`/<table>/, large ones in Hive-style folders (schema/README.md)."""
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CltdbError(
            str(directory), found="something that exists", expected="a new or empty directory", do="choose another one"
        )
    aside = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with workbench(exported=path) as connection, explain_full_disk(directory, do=ELSEWHERE):
            connection.execute("USE exported")
            tables = {table.name: _write(connection, table, aside / table.name) for table in exported_tables()}
            files = integrity.describe(aside)
            written = {"migrations": sorted(store.migrations()), "tables": tables, "files": files}
            write_json(aside / DESCRIPTION, integrity.sealed(written), do=ELSEWHERE)
            if directory.exists():
                directory.rmdir()
            os.replace(aside, directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(connection, table, folder):
    """Writes the files of a table; returns what `export.json` says of it."""
    folders = table.export_folders
    rest = ", ".join(name for name in table.column_names if name not in folders)
    for values in (
        connection.execute(f"SELECT DISTINCT {', '.join(folders)} FROM {table.name} ORDER BY ALL").fetchall() if folders else [()]
    ):
        named = dict(zip(folders, values, strict=True))
        place = folder.joinpath(*(f"{name}={quote(str(value), safe='')}" for name, value in named.items()))
        place.mkdir(parents=True)
        where = " AND ".join(f"{name} = {quoted(value)}" for name, value in named.items()) or "true"
        connection.execute(
            f"COPY (SELECT {rest} FROM {table.name} WHERE {where}) TO {quoted(place / 'rows.parquet')}"
            f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
        )
    (n_rows,) = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()
    return {"rows": n_rows, "columns": table.column_names, "folders": list(folders)} | measured(folder)
