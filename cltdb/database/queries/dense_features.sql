-- Features that fire on much of the text. Many of them stand for a position or the size of the residual stream rather than for a
-- concept.
-- Grain: one row per dict_id, layer, feature.
-- Order: density, highest first, then dict_id, layer, feature.
-- Reads: best_explanations, features.
-- Parameters:
--   $min_density: number = 0.1  at least this share of tokens (0 to 1)
--   $dict_id: text = NULL       only this dictionary
--   $layer: integer = NULL      only this layer
--   $limit: integer = 1000      at most this many rows

WITH chosen AS (
    SELECT dict_id, layer, feature, density, mean_activation, max_activation FROM features
    WHERE density >= $min_density::DOUBLE AND NOT isnan(density)
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    ORDER BY density DESC, dict_id, layer, feature
    LIMIT $limit::BIGINT
)
SELECT dict_id, layer, feature, density, mean_activation, max_activation, b.text, b.score
FROM chosen
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
ORDER BY density DESC, dict_id, layer, feature
