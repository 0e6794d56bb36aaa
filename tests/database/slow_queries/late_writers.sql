-- Features that write mostly several layers after they read: the share of squared decoder norm at least that many layers later.
-- Grain: one row per dict_id, layer, feature.
-- Order: late_frac, highest first, then dict_id, layer, feature.
-- Reads: feature_cards, features.
-- Parameters:
--   $layers_later: integer = 2  count what is written at least this many layers after the feature's own
--   $min_frac: number = 0.5     at least this share (0 to 1)
--   $dict_id: text = NULL       only this dictionary
--   $limit: integer = 1000      at most this many rows

SELECT f.dict_id, f.layer, f.feature,
       list_sum(list_transform(f.decoder_norms[$layers_later::INTEGER + 1:], lambda x: x * x))
           / nullif(list_sum(list_transform(f.decoder_norms, lambda x: x * x)), 0) AS late_frac,
       f.decoder_norms, f.density, c.text, c.score
FROM features AS f
LEFT JOIN feature_cards AS c USING (dict_id, layer, feature)
WHERE late_frac >= $min_frac::DOUBLE AND NOT f.dead AND f.dict_id = coalesce($dict_id::VARCHAR, f.dict_id)
ORDER BY late_frac DESC, f.dict_id, f.layer, f.feature
LIMIT $limit::BIGINT
