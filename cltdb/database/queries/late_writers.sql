-- Features that write mostly several layers after they read: the share of squared decoder norm at least that many layers later.
-- Grain: one row per dict_id, layer, feature.
-- Order: late_frac, highest first, then dict_id, layer, feature.
-- Reads: best_explanations, features.
-- Parameters:
--   $layers_later: integer = 2  count what is written at least this many layers after the feature's own
--   $min_frac: number = 0.5     at least this share (0 to 1)
--   $dict_id: text = NULL       only this dictionary
--   $limit: integer = 1000      at most this many rows

WITH norms AS (  -- a list is turned, and its end cut off, once
    SELECT dict_id, layer, feature, density, decoder_norms, decoder_norms::DOUBLE[] AS norms
    FROM features
    WHERE NOT dead AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
), ends AS (
    SELECT *, norms[greatest($layers_later::INTEGER, 0) + 1:] AS later FROM norms
), late AS (
    SELECT dict_id, layer, feature, list_inner_product(later, later) / nullif(list_inner_product(norms, norms), 0) AS late_frac,
           decoder_norms, density
    FROM ends
    WHERE late_frac BETWEEN $min_frac::DOUBLE AND 'inf'::DOUBLE  -- without NaN, which is above inf
    ORDER BY late_frac DESC, dict_id, layer, feature
    LIMIT $limit::BIGINT
)
SELECT dict_id, layer, feature, f.late_frac, f.decoder_norms, f.density, b.text, b.score
FROM late AS f
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
ORDER BY f.late_frac DESC, dict_id, layer, feature
