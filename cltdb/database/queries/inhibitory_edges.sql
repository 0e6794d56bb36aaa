-- Features that hold others down whatever the input: edges of negative virtual weight. effect: virtual weight times the mean activation of the
-- source, which is what a source that fires takes off the target's pre-activation on average.
-- Grain: one row per dict_id, source_layer, source_feature, target_layer, target_feature.
-- Order: effect, most negative first, then dict_id, source and target.
-- Reads: best_explanations, feature_edges, features.
-- Parameters:
--   $dict_id: text = NULL             only this dictionary
--   $max_coactivation: number = 1e-3  only pairs that fire together on at most this share of tokens
--   $limit: integer = 100             at most this many rows

WITH found AS (
    SELECT e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature,
           e.virtual_weight * s.mean_activation AS effect, e.virtual_weight, e.coactivation, s.density AS source_density
    FROM feature_edges AS e
    JOIN features AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
    WHERE e.virtual_weight < 0
      AND e.coactivation <= $max_coactivation::DOUBLE
      AND e.dict_id = coalesce($dict_id::VARCHAR, e.dict_id)
    ORDER BY effect, e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature
    LIMIT $limit::BIGINT
)
SELECT f.dict_id, f.source_layer, f.source_feature, f.target_layer, f.target_feature, f.effect, f.virtual_weight, f.coactivation,
       f.source_density, t.density AS target_density, b.text AS source_text, c.text AS target_text
FROM found AS f
LEFT JOIN features AS t ON t.dict_id = f.dict_id AND t.layer = f.target_layer AND t.feature = f.target_feature
LEFT JOIN best_explanations AS b ON b.dict_id = f.dict_id AND b.layer = f.source_layer AND b.feature = f.source_feature
LEFT JOIN best_explanations AS c ON c.dict_id = f.dict_id AND c.layer = f.target_layer AND c.feature = f.target_feature
ORDER BY f.effect, f.dict_id, f.source_layer, f.source_feature, f.target_layer, f.target_feature
