-- Features whose best explanation does well in one scorer and badly in the other: often more than one meaning, or a text that is
-- too wide.
-- Grain: one row per dict_id, layer, feature.
-- Order: absolute gap, largest first, then dict_id, layer, feature.
-- Reads: best_explanations, features.
-- Parameters:
--   $dict_id: text = NULL   only this dictionary
--   $layer: integer = NULL  only this layer
--   $limit: integer = 100   at most this many rows
-- gap: detection - fuzzing. Above 0 the text tells windows apart but not tokens in them; below 0 it names tokens but not when
-- they count.

WITH gaps AS (
    SELECT dict_id, layer, feature, detection - fuzzing AS gap, detection, fuzzing, explainer, text FROM best_explanations
    WHERE gap IS NOT NULL AND NOT isnan(gap)
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    ORDER BY abs(gap) DESC, dict_id, layer, feature
    LIMIT $limit::BIGINT
)
SELECT dict_id, layer, feature, g.gap, g.detection, g.fuzzing, g.explainer, g.text, f.density
FROM gaps AS g
LEFT JOIN features AS f USING (dict_id, layer, feature)
ORDER BY abs(g.gap) DESC, dict_id, layer, feature
