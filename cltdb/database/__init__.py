"""The database: everything a run found, in one DuckDB file that SQL and Polars can ask."""
