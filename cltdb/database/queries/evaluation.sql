-- What evaluation measured, with all MLPs replaced (query splices: with some of them; metrics_by_label: on the text
-- of each label).
-- Grain: one row per dict_id, name, layer.
-- Order: dict_id, name, layer (pooled first).
-- Reads: metrics.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary

SELECT dict_id, name, layer, value, ci_low, ci_high
FROM metrics
WHERE stage = 'evaluate' AND variant IS NULL AND label IS NULL AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
ORDER BY dict_id, name, layer NULLS FIRST
