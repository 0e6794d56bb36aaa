-- Does a fact follow its feature? How often the old answer goes when a concept's feature is dropped, and the new one comes when another's is
-- included in its place: means over the features of concepts, in each layer and in all.
-- Grain: one row per dict_id, multiple, layer.
-- Order: dict_id, multiple, layer, all layers together (layer NULL) first.
-- Reads: isolation.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- Low and high ends of 95 %: of the mean over features, cut off at 0 and 1. n_exchanges: of all of them.

WITH means AS (
    SELECT dict_id, multiple, layer, count(*) AS n_features, sum(n_drop) AS n_exchanges,
           avg(success_drop) AS drop_rate, 1.96 * stddev_samp(success_drop) / sqrt(count(success_drop)) AS drop_error,
           avg(success_include) AS include_rate, 1.96 * stddev_samp(success_include) / sqrt(count(success_include)) AS include_error
    FROM isolation
    WHERE n_drop IS NOT NULL AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    GROUP BY GROUPING SETS ((dict_id, multiple, layer), (dict_id, multiple))
)
SELECT dict_id, multiple, layer, n_features, n_exchanges,
       drop_rate, if(drop_error IS NULL, NULL, greatest(drop_rate - drop_error, 0)) AS drop_low,
       if(drop_error IS NULL, NULL, least(drop_rate + drop_error, 1)) AS drop_high,
       include_rate, if(include_error IS NULL, NULL, greatest(include_rate - include_error, 0)) AS include_low,
       if(include_error IS NULL, NULL, least(include_rate + include_error, 1)) AS include_high
FROM means
ORDER BY dict_id, multiple, layer NULLS FIRST
