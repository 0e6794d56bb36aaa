-- How well weights alone say which earlier features drive a feature where it fires: overlap at k, beside a control.
-- Grain: one row per dict_id, route, k, layer (NULL: all layers).
-- Order: dict_id, route (residual, heads), k, layer, all layers first.
-- Reads: pullback_overlaps.
-- Parameters:
--   $dict_id: text = NULL       only this dictionary
--   $layer: integer = NULL      only features of this layer
--   $feature: integer = NULL    only the feature of this index
--   $min_tokens: integer = 10   only features that fire on at least this many tokens of the sample
-- Example: -p dict_id=quickstart-clt-9e0e491d
-- overlap: mean share of the k strongest sources by weight that are among the k largest contributors. control: the same with random features
-- of the same layers and similar density. difference: overlap less control, of the same features. Intervals of the means: 95 %, over features; of the
-- overlap Wilson's, where n is that at which a share varies as much as the mean does, of the difference Student's; NULL of one feature.
-- Stored with harvest.pullback_overlap.

WITH chosen AS (
    SELECT *, overlap - control AS gain FROM pullback_overlaps
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
      AND ($feature::INTEGER IS NULL OR feature = $feature::INTEGER) AND n_tokens >= $min_tokens::BIGINT
), summed AS (
    SELECT dict_id, route, k, layer, count(*) AS n_features, avg(overlap) AS overlap, avg(control) AS control, avg(gain) AS difference,
           CASE WHEN count(*) < 2 THEN NULL
                WHEN avg(overlap) IN (0, 1) THEN count(*) - 1
                ELSE least(sum(n_tokens), (count(*) - 1) * avg(overlap) * (1 - avg(overlap)) / nullif(var_pop(overlap), 0)) END AS n,
           student(count(*)) * stddev_samp(gain) / sqrt(count(*)) AS gain_half
    FROM chosen
    GROUP BY GROUPING SETS ((dict_id, route, k), (dict_id, route, k, layer))
)
SELECT dict_id, route, k, layer, n_features, overlap, wilson(overlap, n).low AS overlap_ci_low,
       wilson(overlap, n).high AS overlap_ci_high,
       control, difference, difference - gain_half AS difference_ci_low, difference + gain_half AS difference_ci_high
FROM summed
ORDER BY dict_id, route DESC, k, layer NULLS FIRST
