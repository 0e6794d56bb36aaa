-- The share of dead features over training, per layer and pooled, with its change since the measurement before.
-- Grain: one row per dict_id, layer, step.
-- Order: dict_id, layer (pooled first), step.
-- Reads: metrics.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary

SELECT dict_id, layer, step, value AS dead_frac,
       value - lag(value) OVER (PARTITION BY dict_id, layer ORDER BY step) AS change
FROM metrics
WHERE stage = 'train' AND name = 'dead_frac' AND variant IS NULL AND label IS NULL
  AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
ORDER BY dict_id, layer NULLS FIRST, step
