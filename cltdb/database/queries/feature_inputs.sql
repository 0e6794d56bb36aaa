-- The tokens and learned positions that drive or inhibit one feature by weights alone, directly and through each attention head.
-- Grain: one row per kind, input, via.
-- Order: kind (token, position), then the absolute weight, highest first, then input, via.
-- Reads: dictionaries, features, input_edges, vocabulary.
-- Parameters:
--   $dict_id: text         the dictionary
--   $layer: integer        the layer the feature reads from
--   $feature: integer      its index in the layer
--   $via: text = NULL      only through this head, such as L1H2, or `residual`: only along the residual stream
--   $limit: integer = 20   at most this many of each kind
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=2 -p feature=222
-- via: NULL is the residual stream. What goes through heads, and positions, are stored with harvest.input_edges, the strongest; tokens along
-- the residual stream are the ten that drive and the ten that inhibit most. virtual_weight: before norms divide, with pattern 1.

WITH own AS (
    SELECT unnest(list_concat(top_embeddings, bottom_embeddings)) AS entry FROM features
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
), found AS (
    SELECT DISTINCT 'token' AS kind, entry.token AS input, NULL AS via, entry.value AS virtual_weight FROM own
    UNION ALL
    SELECT kind, input, via, virtual_weight FROM input_edges
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
), ranked AS (
    SELECT * FROM found
    WHERE $via::VARCHAR IS NULL OR coalesce(via, 'residual') = $via::VARCHAR
    QUALIFY row_number() OVER (PARTITION BY kind ORDER BY abs(virtual_weight) DESC, input, via) <= $limit::BIGINT
), words AS (
    SELECT token, string FROM vocabulary
    WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR)
)
SELECT r.kind, r.input, w.string, r.via, r.virtual_weight
FROM ranked AS r
LEFT JOIN words AS w ON r.kind = 'token' AND w.token = r.input
ORDER BY r.kind DESC, abs(r.virtual_weight) DESC, r.input, r.via
