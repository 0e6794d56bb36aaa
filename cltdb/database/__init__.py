"""The database: everything a run found, in one DuckDB file that SQL and Polars can ask.

store.py opens and migrates it, load.py fills it from the Parquet of artifacts, query.py asks it, api.py answers in
Polars, sql_command.py prints, maintain.py rebuilds, checks and exports. Nothing here imports torch.
"""

from cltdb.database.api import Database, open

__all__ = ["Database", "open"]
