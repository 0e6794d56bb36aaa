-- One quantity over training.
-- Grain: one row per dict_id, step, layer.
-- Order: dict_id, layer (pooled first), step.
-- Reads: metrics.
-- Parameters:
--   $name: text             name of the metric, such as loss, fvu or l0
--   $dict_id: text = NULL   only this dictionary
--   $stage: text = train    stage that measured it
--   $layer: integer = NULL  only this layer; pooled rows (layer NULL) always
-- Example: -p name=fvu

SELECT dict_id, step, layer, value
FROM metrics
WHERE name = $name::VARCHAR AND stage = $stage::VARCHAR AND variant IS NULL AND label IS NULL
  AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
  AND ($layer::INTEGER IS NULL OR layer IS NULL OR layer = $layer::INTEGER)
ORDER BY dict_id, layer NULLS FIRST, step
