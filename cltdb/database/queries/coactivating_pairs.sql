-- Features of different layers that fire together most often.
-- Grain: one row per dict_id, source_layer, source_feature, target_layer, target_feature.
-- Order: coactivation, highest first, then dict_id, source and target.
-- Reads: best_explanations, feature_edges, features.
-- Parameters:
--   $max_density: number = 0.1  no features that fire on more than this share of tokens (0 to 1)
--   $dict_id: text = NULL       only this dictionary
--   $limit: integer = 100       at most this many rows
-- Of pairs that have an edge in feature_edges. coactivation: share of tokens on which both fire.

WITH pair AS (
    SELECT e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature, e.coactivation, e.virtual_weight, e.twera,
           s.density AS source_density, t.density AS target_density
    FROM feature_edges AS e
    JOIN features AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
    JOIN features AS t ON t.dict_id = e.dict_id AND t.layer = e.target_layer AND t.feature = e.target_feature
    WHERE e.coactivation > 0 AND e.dict_id = coalesce($dict_id::VARCHAR, e.dict_id)
      AND s.density <= $max_density::DOUBLE AND t.density <= $max_density::DOUBLE
    ORDER BY e.coactivation DESC, e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature
    LIMIT $limit::BIGINT
)
SELECT p.*, b.text AS source_text, c.text AS target_text
FROM pair AS p
LEFT JOIN best_explanations AS b ON b.dict_id = p.dict_id AND b.layer = p.source_layer AND b.feature = p.source_feature
LEFT JOIN best_explanations AS c ON c.dict_id = p.dict_id AND c.layer = p.target_layer AND c.feature = p.target_feature
ORDER BY p.coactivation DESC, p.dict_id, p.source_layer, p.source_feature, p.target_layer, p.target_feature
