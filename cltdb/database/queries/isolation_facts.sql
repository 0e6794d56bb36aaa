-- Does a fact follow its feature? How often the old answer goes when a concept's feature is dropped, and the new one comes when another's is
-- included in its place: means over concepts, each with its one feature of a layer, or with the mean over its features of all layers.
-- Grain: one row per dict_id, multiple, layer.
-- Order: dict_id, multiple, layer, all layers together (layer NULL) first.
-- Reads: isolation.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- Low and high ends of 95 %: of the mean over concepts, as a concept's features of several layers are not independent; cut off at 0 and 1.
-- n_features, n_exchanges: of all concepts together.

WITH of_concepts AS (
    SELECT dict_id, multiple, layer, concept, count(*) AS n_features, sum(n_drop) AS n_exchanges,
           avg(success_drop) AS dropped, avg(success_include) AS included
    FROM isolation
    WHERE n_drop IS NOT NULL AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    GROUP BY GROUPING SETS ((dict_id, multiple, layer, concept), (dict_id, multiple, concept))
), means AS (
    SELECT dict_id, multiple, layer, sum(n_features)::BIGINT AS n_features, sum(n_exchanges) AS n_exchanges,
           avg(dropped) AS drop_rate, 1.96 * stddev_samp(dropped) / sqrt(count(dropped)) AS drop_error,
           avg(included) AS include_rate, 1.96 * stddev_samp(included) / sqrt(count(included)) AS include_error
    FROM of_concepts GROUP BY dict_id, multiple, layer
)
SELECT dict_id, multiple, layer, n_features, n_exchanges,
       drop_rate, if(drop_error IS NULL, NULL, greatest(drop_rate - drop_error, 0)) AS drop_low,
       if(drop_error IS NULL, NULL, least(drop_rate + drop_error, 1)) AS drop_high,
       include_rate, if(include_error IS NULL, NULL, greatest(include_rate - include_error, 0)) AS include_low,
       if(include_error IS NULL, NULL, least(include_rate + include_error, 1)) AS include_high
FROM means
ORDER BY dict_id, multiple, layer NULLS FIRST
