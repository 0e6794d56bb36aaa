-- The best explanations, or the worst.
-- Grain: one row per dict_id, layer, feature.
-- Order: score, the worst or the best first, then dict_id, layer, feature.
-- Reads: best_explanations, features.
-- Parameters:
--   $first: worst | best = worst  which to list
--   $explainer: text = NULL       only where this explainer wrote the feature's best one
--   $dict_id: text = NULL         only this dictionary
--   $layer: integer = NULL        only this layer
--   $limit: integer = 100         at most this many rows
-- Of each feature its best explanation counts, as in view feature_cards; those without a score are left out.

WITH chosen AS (
    SELECT dict_id, layer, feature, score, detection, fuzzing, explainer, side, text FROM best_explanations
    WHERE score IS NOT NULL AND NOT isnan(score) AND ($explainer::VARCHAR IS NULL OR explainer = $explainer::VARCHAR)
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    ORDER BY if($first::VARCHAR = 'best', -score, score), dict_id, layer, feature
    LIMIT $limit::BIGINT
)
SELECT dict_id, layer, feature, c.score, c.detection, c.fuzzing, c.explainer, c.side, c.text, f.density, f.max_activation
FROM chosen AS c
LEFT JOIN features AS f USING (dict_id, layer, feature)
ORDER BY if($first::VARCHAR = 'best', -c.score, c.score), dict_id, layer, feature
