-- The features that drive one feature, or that it drives, through one attention head, by weights alone (harvest.head_edges).
-- Grain: one row per direction, layer, neighbour, via.
-- Order: direction (from, to), then the absolute weight, highest first, then layer, feature, via.
-- Reads: best_explanations, feature_edges, head_edges_into.
-- Parameters:
--   $dict_id: text         the dictionary
--   $layer: integer        the layer the feature reads from
--   $feature: integer      its index in the layer
--   $limit: integer = 20   at most this many per direction
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=2 -p feature=222
-- virtual_weight: per unit of activation where the head reads, with pattern 1, before norms divide. Stored of every target are the strongest.

WITH near AS (
    SELECT 'from' AS direction, source_layer AS layer, source_feature AS feature, via, virtual_weight
    FROM head_edges_into
    WHERE dict_id = $dict_id::VARCHAR AND target_layer = $layer::INTEGER AND target_feature = $feature::INTEGER
    UNION ALL
    SELECT 'to', target_layer, target_feature, via, virtual_weight
    FROM feature_edges
    WHERE dict_id = $dict_id::VARCHAR AND source_place = $layer::BIGINT * 4294967296 + $feature::INTEGER AND via IS NOT NULL
), ranked AS (
    SELECT * FROM near
    QUALIFY row_number() OVER (PARTITION BY direction ORDER BY abs(virtual_weight) DESC, layer, feature, via) <= $limit::BIGINT
)
SELECT r.direction, r.layer, r.feature, r.via, r.virtual_weight, b.text, b.score
FROM ranked AS r
LEFT JOIN (SELECT place, text, score FROM best_explanations WHERE dict_id = $dict_id::VARCHAR) AS b ON b.place = r.feature::BIGINT * 65536 + r.layer
ORDER BY r.direction, abs(r.virtual_weight) DESC, r.layer, r.feature, r.via
