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
-- Each step is a table of its own, so that a step reads the edges of the features before it and no others: DuckDB passes row groups over by a join
-- on one column alone, so that own and other are one number for layer and feature. Edges lead to later layers, so a feature is met again in steps 3
-- and 4 alone, which leave out those that an earlier step has followed. The ends come from one list, which DuckDB takes for a single row: it looks for
-- them in the texts, and not for every text in them. It passes rows over by what may be a place, and one in 200 that isn't stays, so that most texts
-- would be unpacked; by the feature too, few are.

WITH edges_in AS NOT MATERIALIZED (
    SELECT 'from' AS direction, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation,
           abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN virtual_weight WHEN 'era' THEN era ELSE twera END) AS strength,
           target_place AS own, source_layer::BIGINT * 4294967296 + source_feature AS other
    FROM edges_into WHERE dict_id = $dict_id::VARCHAR
), edges_out AS NOT MATERIALIZED (
    SELECT 'to' AS direction, source_layer, source_feature, target_layer, target_feature, virtual_weight, era, twera, coactivation,
           abs(CASE $measure::VARCHAR WHEN 'virtual_weight' THEN virtual_weight WHEN 'era' THEN era ELSE twera END) AS strength,
           source_place AS own, target_layer::BIGINT * 4294967296 + target_feature AS other
    FROM feature_edges WHERE dict_id = $dict_id::VARCHAR AND via IS NULL
), step1 AS MATERIALIZED (
    FROM (
        FROM edges_in WHERE own = $layer::BIGINT * 4294967296 + $feature::INTEGER
        UNION ALL
        FROM edges_out WHERE own = $layer::BIGINT * 4294967296 + $feature::INTEGER
    )
    QUALIFY row_number() OVER (PARTITION BY direction, own ORDER BY strength DESC, other) <= $width::BIGINT AND strength > 0
), step2 AS (
    FROM (
        FROM edges_in SEMI JOIN (SELECT other AS own FROM step1 WHERE direction = 'from') USING (own)
        UNION ALL
        FROM edges_out SEMI JOIN (SELECT other AS own FROM step1 WHERE direction = 'to') USING (own)
    )
    WHERE $steps::INTEGER >= 2
    QUALIFY row_number() OVER (PARTITION BY direction, own ORDER BY strength DESC, other) <= $width::BIGINT AND strength > 0
), step3 AS (
    FROM (
        FROM edges_in SEMI JOIN (SELECT other AS own FROM step2 WHERE direction = 'from') USING (own)
        UNION ALL
        FROM edges_out SEMI JOIN (SELECT other AS own FROM step2 WHERE direction = 'to') USING (own)
    ) ANTI JOIN step2 USING (direction, own)
    WHERE $steps::INTEGER >= 3
    QUALIFY row_number() OVER (PARTITION BY direction, own ORDER BY strength DESC, other) <= $width::BIGINT AND strength > 0
), step4 AS (
    FROM (
        FROM edges_in SEMI JOIN (SELECT other AS own FROM step3 WHERE direction = 'from') USING (own)
        UNION ALL
        FROM edges_out SEMI JOIN (SELECT other AS own FROM step3 WHERE direction = 'to') USING (own)
    ) ANTI JOIN step2 USING (direction, own) ANTI JOIN step3 USING (direction, own)
    WHERE $steps::INTEGER >= 4
    QUALIFY row_number() OVER (PARTITION BY direction, own ORDER BY strength DESC, other) <= $width::BIGINT AND strength > 0
), nearest AS MATERIALIZED (
    SELECT 1 AS step, * FROM step1
    UNION ALL SELECT 2 AS step, * FROM step2
    UNION ALL SELECT 3 AS step, * FROM step3
    UNION ALL SELECT 4 AS step, * FROM step4
), ends AS MATERIALIZED (
    SELECT unnest(list(place)) AS place, unnest(list((place >> 16)::INTEGER)) AS feature FROM (
        SELECT source_feature::BIGINT * 65536 + source_layer AS place FROM nearest
        UNION ALL
        SELECT target_feature::BIGINT * 65536 + target_layer FROM nearest
    )
), texts AS MATERIALIZED (
    SELECT place, text FROM best_explanations
    WHERE dict_id = $dict_id::VARCHAR AND place IN (SELECT place FROM ends) AND feature IN (SELECT feature FROM ends)
)
SELECT w.direction, w.step, w.source_layer, w.source_feature, w.target_layer, w.target_feature, w.virtual_weight, w.era,
       w.twera, w.coactivation, s.text AS source_text, t.text AS target_text
FROM nearest AS w
LEFT JOIN texts AS s ON s.place = w.source_feature::BIGINT * 65536 + w.source_layer
LEFT JOIN texts AS t ON t.place = w.target_feature::BIGINT * 65536 + w.target_layer
ORDER BY w.direction, w.step, w.strength DESC, w.source_layer, w.source_feature, w.target_layer, w.target_feature
