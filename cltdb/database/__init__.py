"""The database: everything a run found, in one DuckDB file that SQL and Polars can ask.

schema/ declares its tables, one migration each (schema/README.md), and tables.py reads what they say. store.py opens and migrates the
database, parts.py and load.py fill it from the Parquet of artifacts, publish.py shows runs that go on, query.py asks, api.py answers in
Polars, sql_command.py prints, check.py says what is wrong, export.py writes Parquet, which folder.py reads, merge.py makes one of several,
artifacts.py makes it anew. Nothing here imports torch.
"""

from cltdb.database.api import Database, open

__all__ = ["Database", "open"]
