-- The input-independent circuit around one feature: the strongest edges into it, into their sources and so on, and out of it likewise, with
-- the explanations of both ends. An edge met on several ways stands at the fewest steps.
-- Grain: one row per direction, source_layer, source_feature, target_layer, target_feature.
-- Order: direction (from, to), then step, then the absolute measure, highest first, then source and target.
-- Reads: feature_cards, feature_edges.
-- Parameters:
--   $dict_id: text                                  the dictionary
--   $layer: integer                                 the layer the feature reads from
--   $feature: integer                               its index in the layer
--   $steps: integer = 2                             edges between the feature and the farthest one, at most
--   $width: integer = 5                             edges followed per feature and step, at most
--   $measure: twera | era | virtual_weight = twera  virtual_weight, era or twera
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222

WITH RECURSIVE measured AS (
    SELECT source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation,
           abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN virtual_weight WHEN 'era' THEN era ELSE twera END) AS strength
    FROM feature_edges
    WHERE dict_id = $dict_id::VARCHAR AND via IS NULL AND strength > 0
), incoming AS (
    FROM measured
    QUALIFY row_number() OVER (PARTITION BY target_layer, target_feature
                               ORDER BY strength DESC, source_layer, source_feature) <= $width::BIGINT
), outgoing AS (
    FROM measured
    QUALIFY row_number() OVER (PARTITION BY source_layer, source_feature
                               ORDER BY strength DESC, target_layer, target_feature) <= $width::BIGINT
), walked AS (
    SELECT 'from' AS direction, 1 AS step, i.* FROM incoming AS i
    WHERE i.target_layer = $layer::INTEGER AND i.target_feature = $feature::INTEGER
    UNION ALL
    SELECT 'to', 1, o.* FROM outgoing AS o
    WHERE o.source_layer = $layer::INTEGER AND o.source_feature = $feature::INTEGER
    UNION
    (SELECT w.direction, w.step + 1, i.* FROM walked AS w
     JOIN incoming AS i ON i.target_layer = w.source_layer AND i.target_feature = w.source_feature
     WHERE w.direction = 'from' AND w.step < $steps::INTEGER
     UNION ALL
     SELECT w.direction, w.step + 1, o.* FROM walked AS w
     JOIN outgoing AS o ON o.source_layer = w.target_layer AND o.source_feature = w.target_feature
     WHERE w.direction = 'to' AND w.step < $steps::INTEGER)
), nearest AS (
    SELECT min(step) AS step, * EXCLUDE (step) FROM walked GROUP BY ALL
)
SELECT w.direction, w.step, w.source_layer, w.source_feature, w.target_layer, w.target_feature, w.virtual_weight, w.era,
       w.twera, w.coactivation, s.text AS source_text, t.text AS target_text
FROM nearest AS w
LEFT JOIN feature_cards AS s ON s.dict_id = $dict_id::VARCHAR AND s.layer = w.source_layer AND s.feature = w.source_feature
LEFT JOIN feature_cards AS t ON t.dict_id = $dict_id::VARCHAR AND t.layer = w.target_layer AND t.feature = w.target_feature
ORDER BY w.direction, w.step, w.strength DESC, w.source_layer, w.source_feature, w.target_layer, w.target_feature
