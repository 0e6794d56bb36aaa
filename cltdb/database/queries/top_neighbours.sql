-- The features most strongly connected to one feature by circuits that do not depend on the input, before and after it.
-- Grain: one row per direction, neighbour.
-- Order: direction (from, to), then the absolute measure, highest first, then layer, feature.
-- Reads: best_explanations, edges_into, feature_edges.
-- Parameters:
--   $dict_id: text                                  the dictionary
--   $layer: integer                                 the layer the feature reads from
--   $feature: integer                               its index in the layer
--   $measure: twera | era | virtual_weight = twera  virtual_weight, era or twera
--   $limit: integer = 20                            at most this many per direction
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222

WITH near AS (
    SELECT 'from' AS direction, source_layer AS layer, source_feature AS feature, virtual_weight, era, twera, coactivation
    FROM edges_into
    WHERE dict_id = $dict_id::VARCHAR AND target_place = $layer::BIGINT * 4294967296 + $feature::INTEGER
    UNION ALL
    SELECT 'to', target_layer, target_feature, virtual_weight, era, twera, coactivation
    FROM feature_edges
    WHERE dict_id = $dict_id::VARCHAR AND source_place = $layer::BIGINT * 4294967296 + $feature::INTEGER AND via IS NULL
), ranked AS (
    SELECT *, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN virtual_weight WHEN 'era' THEN era ELSE twera END) AS strength
    FROM near
    QUALIFY row_number() OVER (PARTITION BY direction ORDER BY strength DESC NULLS LAST, layer, feature) <= $limit::BIGINT
), ends AS MATERIALIZED (  -- as in feature_circuit
    SELECT unnest(list(feature::BIGINT * 65536 + layer)) AS place, unnest(list(feature)) AS feature FROM ranked
), texts AS MATERIALIZED (
    SELECT place, text, score FROM best_explanations
    WHERE dict_id = $dict_id::VARCHAR AND place IN (SELECT place FROM ends) AND feature IN (SELECT feature FROM ends)
)
SELECT r.direction, r.layer, r.feature, r.virtual_weight, r.era, r.twera, r.coactivation, b.text, b.score
FROM ranked AS r
LEFT JOIN texts AS b ON b.place = r.feature::BIGINT * 65536 + r.layer
ORDER BY r.direction, r.strength DESC NULLS LAST, r.layer, r.feature
