-- How strongly one feature fires: a histogram of its activation over the tokens on which it is active.
-- Grain: one row per bin.
-- Order: low, lowest first.
-- Reads: features.
-- Parameters:
--   $dict_id: text     the dictionary
--   $layer: integer    the layer the feature reads from
--   $feature: integer  its index in the layer
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222
-- low: lower edge of the bin, in model units; four bins of equal width lie between one power of two and the next. frac: share of
-- the tokens on which it is active; frac_above: in this bin or a higher one. No rows for a dead feature and where an earlier
-- cltdb harvested.

WITH bins AS (
    SELECT unnest(histogram, recursive := true) FROM features
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
)
SELECT low, n, n / sum(n) OVER () AS frac, sum(n) OVER (ORDER BY low DESC) / sum(n) OVER () AS frac_above
FROM bins
ORDER BY low
