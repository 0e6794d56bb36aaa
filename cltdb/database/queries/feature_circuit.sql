-- The input-independent circuit around one feature: the strongest edges into it, into their sources and so on, and out of it likewise, with
-- the explanations of both ends. An edge met on several ways stands at the fewest steps.
-- Grain: one row per direction, source_layer, source_feature, target_layer, target_feature.
-- Order: direction (from, to), then step, then the absolute measure, highest first, then source and target.
-- Reads: best_explanations, edges_into, feature_edges.
-- Parameters:
--   $dict_id: text                                  the dictionary
--   $layer: integer                                 the layer the feature reads from
--   $feature: integer                               its index in the layer
--   $steps: 1 | 2 | 3 | 4 = 2                       edges between the feature and the farthest one, at most
--   $width: integer = 5                             edges followed per feature and step, at most
--   $measure: twera | era | virtual_weight = twera  virtual_weight, era or twera
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222
-- Each step is a table of its own, so that a step reads the edges of the features before it and no others.

WITH into1 AS (
    SELECT *, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN virtual_weight WHEN 'era' THEN era ELSE twera END) AS strength
    FROM edges_into
    WHERE dict_id = $dict_id::VARCHAR AND target_layer = $layer::INTEGER AND target_feature = $feature::INTEGER AND strength > 0
    QUALIFY row_number() OVER (ORDER BY strength DESC, source_layer, source_feature) <= $width::BIGINT
), into2 AS (
    SELECT e.*, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN e.virtual_weight WHEN 'era' THEN e.era ELSE e.twera END) AS strength
    FROM (SELECT DISTINCT source_layer, source_feature FROM into1 WHERE $steps::INTEGER >= 2) AS w
    JOIN edges_into AS e
        ON e.dict_id = $dict_id::VARCHAR AND e.target_layer = w.source_layer AND e.target_feature = w.source_feature
    WHERE strength > 0
    QUALIFY row_number() OVER (PARTITION BY e.target_layer, e.target_feature
                               ORDER BY strength DESC, e.source_layer, e.source_feature) <= $width::BIGINT
), into3 AS (
    SELECT e.*, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN e.virtual_weight WHEN 'era' THEN e.era ELSE e.twera END) AS strength
    FROM (SELECT DISTINCT source_layer, source_feature FROM into2 WHERE $steps::INTEGER >= 3) AS w
    JOIN edges_into AS e
        ON e.dict_id = $dict_id::VARCHAR AND e.target_layer = w.source_layer AND e.target_feature = w.source_feature
    WHERE strength > 0
    QUALIFY row_number() OVER (PARTITION BY e.target_layer, e.target_feature
                               ORDER BY strength DESC, e.source_layer, e.source_feature) <= $width::BIGINT
), into4 AS (
    SELECT e.*, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN e.virtual_weight WHEN 'era' THEN e.era ELSE e.twera END) AS strength
    FROM (SELECT DISTINCT source_layer, source_feature FROM into3 WHERE $steps::INTEGER >= 4) AS w
    JOIN edges_into AS e
        ON e.dict_id = $dict_id::VARCHAR AND e.target_layer = w.source_layer AND e.target_feature = w.source_feature
    WHERE strength > 0
    QUALIFY row_number() OVER (PARTITION BY e.target_layer, e.target_feature
                               ORDER BY strength DESC, e.source_layer, e.source_feature) <= $width::BIGINT
), out1 AS (
    SELECT *, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN virtual_weight WHEN 'era' THEN era ELSE twera END) AS strength
    FROM feature_edges
    WHERE dict_id = $dict_id::VARCHAR AND source_layer = $layer::INTEGER AND source_feature = $feature::INTEGER AND strength > 0
    QUALIFY row_number() OVER (ORDER BY strength DESC, target_layer, target_feature) <= $width::BIGINT
), out2 AS (
    SELECT e.*, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN e.virtual_weight WHEN 'era' THEN e.era ELSE e.twera END) AS strength
    FROM (SELECT DISTINCT target_layer, target_feature FROM out1 WHERE $steps::INTEGER >= 2) AS w
    JOIN feature_edges AS e
        ON e.dict_id = $dict_id::VARCHAR AND e.source_layer = w.target_layer AND e.source_feature = w.target_feature
    WHERE strength > 0
    QUALIFY row_number() OVER (PARTITION BY e.source_layer, e.source_feature
                               ORDER BY strength DESC, e.target_layer, e.target_feature) <= $width::BIGINT
), out3 AS (
    SELECT e.*, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN e.virtual_weight WHEN 'era' THEN e.era ELSE e.twera END) AS strength
    FROM (SELECT DISTINCT target_layer, target_feature FROM out2 WHERE $steps::INTEGER >= 3) AS w
    JOIN feature_edges AS e
        ON e.dict_id = $dict_id::VARCHAR AND e.source_layer = w.target_layer AND e.source_feature = w.target_feature
    WHERE strength > 0
    QUALIFY row_number() OVER (PARTITION BY e.source_layer, e.source_feature
                               ORDER BY strength DESC, e.target_layer, e.target_feature) <= $width::BIGINT
), out4 AS (
    SELECT e.*, abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN e.virtual_weight WHEN 'era' THEN e.era ELSE e.twera END) AS strength
    FROM (SELECT DISTINCT target_layer, target_feature FROM out3 WHERE $steps::INTEGER >= 4) AS w
    JOIN feature_edges AS e
        ON e.dict_id = $dict_id::VARCHAR AND e.source_layer = w.target_layer AND e.source_feature = w.target_feature
    WHERE strength > 0
    QUALIFY row_number() OVER (PARTITION BY e.source_layer, e.source_feature
                               ORDER BY strength DESC, e.target_layer, e.target_feature) <= $width::BIGINT
), walked AS (
    SELECT 'from' AS direction, 1 AS step, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation, strength FROM into1
    UNION ALL
    SELECT 'from', 2, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation, strength FROM into2
    UNION ALL
    SELECT 'from', 3, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation, strength FROM into3
    UNION ALL
    SELECT 'from', 4, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation, strength FROM into4
    UNION ALL
    SELECT 'to', 1, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation, strength FROM out1
    UNION ALL
    SELECT 'to', 2, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation, strength FROM out2
    UNION ALL
    SELECT 'to', 3, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation, strength FROM out3
    UNION ALL
    SELECT 'to', 4, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation, strength FROM out4
), nearest AS (
    SELECT min(step) AS step, * EXCLUDE (step) FROM walked GROUP BY ALL
)
SELECT w.direction, w.step, w.source_layer, w.source_feature, w.target_layer, w.target_feature, w.virtual_weight, w.era,
       w.twera, w.coactivation, s.text AS source_text, t.text AS target_text
FROM nearest AS w
LEFT JOIN best_explanations AS s ON s.dict_id = $dict_id::VARCHAR AND s.layer = w.source_layer AND s.feature = w.source_feature
LEFT JOIN best_explanations AS t ON t.dict_id = $dict_id::VARCHAR AND t.layer = w.target_layer AND t.feature = w.target_feature
ORDER BY w.direction, w.step, w.strength DESC, w.source_layer, w.source_feature, w.target_layer, w.target_feature
