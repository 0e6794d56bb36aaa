-- The features that one dictionary has and another has not: what appeared and what vanished.
-- Grain: one row per dict_a, dict_b, relation, layer, feature.
-- Order: dict_a, dict_b, relation, density (highest first), layer, feature.
-- Reads: best_explanations, dictionary_matches, feature_matches, features.
-- Parameters:
--   $dict_a: text = NULL                      only with this first dictionary
--   $dict_b: text = NULL                      only with this second dictionary
--   $relation: appeared | vanished = NULL     only what is in the second, or in the first
--   $layer: integer = NULL                    only this layer
--   $limit: integer = 1000                    at most this many rows
-- dict_id, layer, feature: of the dictionary that has it. nearest: the highest similarity that it has in the other one. Dead features, which have
-- no density, come last.

WITH changed AS (
    SELECT dict_a, dict_b, relation, if(relation = 'appeared', dict_b, dict_a) AS dict_id,
           if(relation = 'appeared', layer_b, layer_a) AS layer, if(relation = 'appeared', feature_b, feature_a) AS feature,
           if(matched_by = 'activations', activation_correlation, decoder_cosine) AS nearest
    FROM feature_matches JOIN (SELECT DISTINCT dict_a, dict_b, matched_by FROM dictionary_matches) USING (dict_a, dict_b)
    WHERE relation IN ('appeared', 'vanished') AND ($relation::VARCHAR IS NULL OR relation = $relation::VARCHAR)
      AND ($dict_a::VARCHAR IS NULL OR dict_a = $dict_a::VARCHAR) AND ($dict_b::VARCHAR IS NULL OR dict_b = $dict_b::VARCHAR)
      AND ($layer::INTEGER IS NULL OR coalesce(layer_a, layer_b) = $layer::INTEGER)
)
SELECT c.dict_a, c.dict_b, c.relation, c.dict_id, c.layer, c.feature, c.nearest, f.density, e.text
FROM changed AS c
LEFT JOIN features AS f USING (dict_id, layer, feature)
LEFT JOIN best_explanations AS e USING (dict_id, layer, feature)
ORDER BY c.dict_a, c.dict_b, c.relation, f.density DESC NULLS LAST, c.layer, c.feature
LIMIT $limit::BIGINT
