-- Features sorted by one of their numbers.
-- Grain: one row per dict_id, layer, feature.
-- Order: the chosen number, unknown ones last, then dict_id, layer, feature.
-- Reads: best_explanations, features.
-- Parameters:
--   $dict_id: text = NULL                                    only this dictionary
--   $layer: integer = NULL                                   only this layer
--   $alive: boolean = NULL                                   true: no dead features
--   $sort: score | density | max_activation | layer = score  score, density, max_activation or layer (which goes up)
--   $limit: integer = 200                                    at most this many rows
-- n_features: how many there are, of which these are the first.

WITH chosen AS (
    SELECT dict_id, layer, feature, density, max_activation, dead FROM features
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
      AND ($alive::BOOLEAN IS NOT TRUE OR NOT dead)
), sorted AS (
    SELECT c.*, b.score,
           CASE $sort::VARCHAR WHEN 'score' THEN b.score WHEN 'density' THEN density WHEN 'max_activation' THEN max_activation
                               ELSE -layer END AS number
    FROM chosen AS c LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
    ORDER BY if(isnan(number), NULL, number) DESC NULLS LAST, dict_id, layer, feature
    LIMIT $limit::BIGINT
)
SELECT s.dict_id, s.layer, s.feature, b.text, s.score, b.explainer, s.density, s.max_activation, s.dead,
       (SELECT count(*) FROM chosen) AS n_features
FROM sorted AS s LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
ORDER BY if(isnan(number), NULL, number) DESC NULLS LAST, s.dict_id, s.layer, s.feature
