-- Every table, view and column with its type and meaning.
-- Grain: one row per column, and one per table or view (column NULL).
-- Order: table, the table itself first, then its columns in order.
-- Reads: the catalog.
-- Parameters: none
-- In an exported folder tables are views over Parquet files; they count as the tables that they are in the database.

SELECT "table", "column", "type", comment
FROM (
    SELECT table_name AS "table", NULL AS "column", 'table' AS "type", comment, -1 AS place FROM duckdb_tables() WHERE NOT internal
    UNION ALL
    SELECT view_name, NULL, CASE WHEN contains(sql, 'read_parquet(') THEN 'table' ELSE 'view' END, comment, -1 FROM duckdb_views() WHERE NOT internal
    UNION ALL
    SELECT table_name, column_name, data_type, comment, column_index FROM duckdb_columns() WHERE NOT internal
)
ORDER BY "table", place
