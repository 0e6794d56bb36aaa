-- Features that hold others down whatever the input: edges of negative virtual weight. effect: virtual weight times the mean activation of the
-- source, which is what a source that fires takes off the target's pre-activation on average.
-- Grain: one row per dict_id, source_layer, source_feature, target_layer, target_feature.
-- Order: effect, most negative first, then dict_id, source and target.
-- Reads: best_explanations, feature_edges, features.
-- Parameters:
--   $dict_id: text = NULL             only this dictionary
--   $max_coactivation: number = 1e-3  only pairs that fire together on at most this share of tokens
--   $limit: integer = 100             at most this many rows
-- The edges of lowest weight bound the effect that the last of the rows can have; edges that cannot reach it are passed over.

WITH strong AS (
    SELECT dict_id, source_layer, source_feature, virtual_weight FROM feature_edges
    WHERE virtual_weight < 0 AND coactivation <= $max_coactivation::DOUBLE
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    ORDER BY virtual_weight
    LIMIT 10 * $limit::BIGINT
), bound AS (
    SELECT if(count(effect) < $limit::BIGINT, 0, max(effect)) /
               (SELECT max(mean_activation) FROM features WHERE NOT isnan(mean_activation)) AS virtual_weight
    FROM (SELECT e.virtual_weight * s.mean_activation AS effect
          FROM strong AS e
          JOIN features AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
          ORDER BY effect
          LIMIT $limit::BIGINT)
), able AS (
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, virtual_weight, coactivation
    FROM feature_edges
    WHERE virtual_weight < (SELECT coalesce(nullif(0.999 * virtual_weight, 'nan'), 0) FROM bound)
      AND coactivation <= $max_coactivation::DOUBLE
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
), found AS MATERIALIZED (
    SELECT e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature,
           e.virtual_weight * s.mean_activation AS effect, e.virtual_weight, e.coactivation
    FROM able AS e
    JOIN features AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
    ORDER BY effect, e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature
    LIMIT $limit::BIGINT
), ends AS MATERIALIZED (
    SELECT dict_id, source_layer AS layer, source_feature AS feature FROM found
    UNION
    SELECT dict_id, target_layer, target_feature FROM found
), texts AS MATERIALIZED (
    SELECT dict_id, layer, feature, text FROM best_explanations SEMI JOIN ends USING (dict_id, layer, feature)
), densities AS MATERIALIZED (
    SELECT dict_id, layer, feature, density FROM features SEMI JOIN ends USING (dict_id, layer, feature)
)
SELECT f.dict_id, f.source_layer, f.source_feature, f.target_layer, f.target_feature, f.effect, f.virtual_weight, f.coactivation,
       s.density AS source_density, t.density AS target_density, b.text AS source_text, c.text AS target_text
FROM found AS f
LEFT JOIN densities AS s ON s.dict_id = f.dict_id AND s.layer = f.source_layer AND s.feature = f.source_feature
LEFT JOIN densities AS t ON t.dict_id = f.dict_id AND t.layer = f.target_layer AND t.feature = f.target_feature
LEFT JOIN texts AS b ON b.dict_id = f.dict_id AND b.layer = f.source_layer AND b.feature = f.source_feature
LEFT JOIN texts AS c ON c.dict_id = f.dict_id AND c.layer = f.target_layer AND c.feature = f.target_feature
ORDER BY f.effect, f.dict_id, f.source_layer, f.source_feature, f.target_layer, f.target_feature
