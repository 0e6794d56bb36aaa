-- Does a fact follow its feature? How often the old answer goes when a concept's feature is dropped, and the new one comes when another's is
-- included in its place: means over concepts, each with its one feature of a layer, or with the mean over its features of all layers.
-- Grain: one row per dict_id, multiple, layer.
-- Order: dict_id, multiple, layer, all layers together (layer NULL) first.
-- Reads: isolation.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- Low and high ends of 95 %: Wilson's of the mean over concepts, as a concept's features of several layers are not independent; n is that at which a
-- share varies as much as the mean does. NULL of one concept. n_features, n_exchanges: of all concepts together.

WITH of_concepts AS (
    SELECT dict_id, multiple, layer, concept, count(*) AS n_features, sum(n_drop) AS n_exchanges, sum(n_include) AS n_included,
           avg(success_drop) AS dropped, avg(success_include) AS included
    FROM isolation
    WHERE n_drop IS NOT NULL AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    GROUP BY GROUPING SETS ((dict_id, multiple, layer, concept), (dict_id, multiple, concept))
), rates AS (
    SELECT dict_id, multiple, layer, n_features, n_exchanges, true AS is_drop, dropped AS rate, n_exchanges AS n_asked FROM of_concepts
    UNION ALL
    SELECT dict_id, multiple, layer, n_features, n_exchanges, false AS is_drop, included AS rate, n_included AS n_asked FROM of_concepts
), means AS (
    SELECT dict_id, multiple, layer, is_drop, sum(n_features)::BIGINT AS n_features, sum(n_exchanges) AS n_exchanges, avg(rate) AS rate,
           CASE WHEN count(rate) < 2 THEN NULL
                WHEN avg(rate) IN (0, 1) THEN count(rate) - 1
                ELSE least(sum(n_asked), (count(rate) - 1) * avg(rate) * (1 - avg(rate)) / nullif(var_pop(rate), 0)) END AS n
    FROM rates GROUP BY dict_id, multiple, layer, is_drop
), intervals AS (
    SELECT *, wilson(rate, n) AS ends FROM means
)
SELECT dict_id, multiple, layer, any_value(n_features) AS n_features, any_value(n_exchanges) AS n_exchanges,
       any_value(rate) FILTER (is_drop) AS drop_rate, any_value(ends.low) FILTER (is_drop) AS drop_low,
       any_value(ends.high) FILTER (is_drop) AS drop_high,
       any_value(rate) FILTER (NOT is_drop) AS include_rate,
       any_value(ends.low) FILTER (NOT is_drop) AS include_low,
       any_value(ends.high) FILTER (NOT is_drop) AS include_high
FROM intervals
GROUP BY dict_id, multiple, layer
ORDER BY dict_id, multiple, layer NULLS FIRST
