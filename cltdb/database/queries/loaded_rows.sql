-- What artifacts brought into the database.
-- Grain: one row per artifact_key, table.
-- Order: artifact_key, table.
-- Reads: loaded_parts.
-- Parameters:
--   $artifact_key: text = NULL  only this artifact
-- n_rows: rows of the files that were read. complete: false while rows are still to be read. n_superseded_parts: files of which a
-- later artifact replaced rows.

SELECT artifact_key, split_part(part, '/', 1) AS "table", sum(rows) AS n_rows, count(*) AS n_parts, bool_and(complete) AS complete,
       count(*) FILTER (superseded) AS n_superseded_parts, max(loaded_at) AS loaded_at
FROM loaded_parts
WHERE artifact_key = coalesce($artifact_key::VARCHAR, artifact_key)
GROUP BY artifact_key, "table"
ORDER BY artifact_key, "table"
