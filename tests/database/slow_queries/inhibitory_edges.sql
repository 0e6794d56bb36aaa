-- Features that hold others down whatever the input: edges of negative virtual weight. effect: virtual weight times the mean activation of the
-- source, which is what a source that fires takes off the target's pre-activation on average.
-- Grain: one row per dict_id, source_layer, source_feature, target_layer, target_feature.
-- Order: effect, most negative first, then dict_id, source and target.
-- Reads: feature_cards, feature_edges.
-- Parameters:
--   $dict_id: text = NULL             only this dictionary
--   $max_coactivation: number = 1e-3  only pairs that fire together on at most this share of tokens
--   $limit: integer = 100             at most this many rows

SELECT e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature,
       e.virtual_weight * s.mean_activation AS effect, e.virtual_weight, e.coactivation,
       s.density AS source_density, t.density AS target_density, s.text AS source_text, t.text AS target_text
FROM feature_edges AS e
JOIN feature_cards AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
JOIN feature_cards AS t ON t.dict_id = e.dict_id AND t.layer = e.target_layer AND t.feature = e.target_feature
WHERE e.virtual_weight < 0
  AND e.coactivation <= $max_coactivation::DOUBLE
  AND e.dict_id = coalesce($dict_id::VARCHAR, e.dict_id)
ORDER BY effect, e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature
LIMIT $limit::BIGINT
