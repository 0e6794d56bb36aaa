-- How much decoders overlap: |cosine| over pairs of features, beside independent random directions and the Welch bound.
-- Grain: one row per dict_id, scope, layer.
-- Order: dict_id, scope, layer (pooled first).
-- Reads: metrics.
-- Parameters:
--   $dict_id: text = NULL            only this dictionary
--   $scope: source | target = NULL   only this scope
-- scope source: the features of one layer, each by its decoders to all its target layers; target: all features that write to a layer, each by
-- its decoder to it. Intervals (_low, _high): 95 %, over features. excess: mean_square less that of random directions.

WITH measured AS (
    SELECT dict_id, layer, split_part(name, '_', 3) AS scope, substr(name, len('decoder_cosine_source_') + 1) AS measure, value, ci_low, ci_high
    FROM metrics
    WHERE stage = 'evaluate' AND starts_with(name, 'decoder_cosine_') AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
)
SELECT dict_id, scope, layer,
       max(value) FILTER (measure = 'mean') AS mean,
       max(ci_low) FILTER (measure = 'mean') AS mean_low,
       max(ci_high) FILTER (measure = 'mean') AS mean_high,
       max(value) FILTER (measure = 'random_mean') AS random_mean,
       max(value) FILTER (measure = 'p99') AS p99,
       max(ci_low) FILTER (measure = 'p99') AS p99_low,
       max(ci_high) FILTER (measure = 'p99') AS p99_high,
       max(value) FILTER (measure = 'random_p99') AS random_p99,
       max(value) FILTER (measure = 'max') AS max,
       max(ci_low) FILTER (measure = 'max') AS max_low,
       max(ci_high) FILTER (measure = 'max') AS max_high,
       max(value) FILTER (measure = 'random_max') AS random_max,
       max(value) FILTER (measure = 'mean_square') AS mean_square,
       max(ci_low) FILTER (measure = 'mean_square') AS mean_square_low,
       max(ci_high) FILTER (measure = 'mean_square') AS mean_square_high,
       max(value) FILTER (measure = 'random_mean_square') AS random_mean_square,
       mean_square - random_mean_square AS excess,
       max(value) FILTER (measure = 'welch_mean_square') AS welch_mean_square,
       max(value) FILTER (measure = 'welch_rms') AS welch_rms
FROM measured
WHERE $scope::VARCHAR IS NULL OR scope = $scope::VARCHAR
GROUP BY dict_id, scope, layer
ORDER BY dict_id, scope, layer NULLS FIRST
