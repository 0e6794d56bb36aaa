-- What evaluation measured.
-- Grain: one row per dict_id, name, layer.
-- Order: dict_id, name, layer (pooled first).
-- Reads: metrics.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary

SELECT dict_id, name, layer, value
FROM metrics
WHERE stage = 'evaluate' AND dict_id = coalesce($dict_id::VARCHAR, dict_id)
ORDER BY dict_id, name, layer NULLS FIRST
