-- What was measured in training and evaluation.
-- Grain: one row per dict_id, name, stage.
-- Order: dict_id, name, stage.
-- Reads: metrics.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary

SELECT dict_id, name, stage, count(*) AS n_values
FROM metrics
WHERE variant IS NULL AND label IS NULL AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY dict_id, name, stage
ORDER BY dict_id, name, stage
