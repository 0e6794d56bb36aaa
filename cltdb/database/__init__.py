"""The database: everything a run found, in one DuckDB file that SQL and Polars can ask.

schema/ declares its tables, one migration each (schema/README.md), and tables.py reads what they say. store.py opens and migrates the
database, parts.py and load.py fill it from the Parquet of artifacts, publish.py shows runs that go on, query.py asks, api.py answers in
Polars, sql_command.py prints, check.py says what is wrong, export.py writes Parquet, which folder.py reads, merge.py makes one of several,
artifacts.py makes it anew. Nothing here imports torch. Commands that ask do without api.py: its names are loaded when they are first used.
"""

__all__ = ["Database", "open"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'cltdb.database' has no attribute {name!r}")
    from cltdb.database import api

    return getattr(api, name)
