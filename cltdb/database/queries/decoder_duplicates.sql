-- Pairs of features of one layer whose decoder vectors point almost the same way: the same feature twice, or one that was split.
-- Grain: one row per dict_id, layer, feature, neighbour (of a pair the lower index is feature).
-- Order: cosine, highest first, then dict_id, layer, feature, neighbour.
-- Reads: best_explanations, feature_neighbours, features.
-- Parameters:
--   $min_cosine: number = 0.9  at least this cosine between the decoder vectors (-1 to 1)
--   $dict_id: text = NULL      only this dictionary
--   $layer: integer = NULL     only this layer
--   $limit: integer = 1000     at most this many rows
-- A decoder vector here is that of all target layers together. Of each feature the 10 nearest are known.
-- A pair has two rows at most, so that the best pairs are among twice as many of the best rows: no others are grouped.

WITH least AS MATERIALIZED (
    SELECT coalesce(min(cosine), 2) AS cosine FROM (
        SELECT cosine FROM feature_neighbours
        WHERE cosine >= $min_cosine::DOUBLE AND NOT isnan(cosine) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
          AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
        ORDER BY cosine DESC
        LIMIT 2 * least($limit::BIGINT, 4000000000000000000)
    )
), pair AS MATERIALIZED (
    SELECT dict_id, layer, least(feature, neighbour) AS feature, greatest(feature, neighbour) AS neighbour, max(cosine) AS cosine
    FROM feature_neighbours
    WHERE cosine >= (SELECT cosine FROM least) AND NOT isnan(cosine) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
      AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    GROUP BY ALL
    ORDER BY cosine DESC, dict_id, layer, feature, neighbour
    LIMIT $limit::BIGINT
), ends AS MATERIALIZED (
    SELECT dict_id, layer, feature FROM pair
    UNION
    SELECT dict_id, layer, neighbour FROM pair
), texts AS MATERIALIZED (
    SELECT dict_id, layer, feature, text FROM best_explanations SEMI JOIN ends USING (dict_id, layer, feature)
), densities AS MATERIALIZED (
    SELECT dict_id, layer, feature, density FROM features SEMI JOIN ends USING (dict_id, layer, feature)
)
SELECT p.dict_id, p.layer, p.feature, p.neighbour, p.cosine, f.density, n.density AS neighbour_density, b.text, c.text AS neighbour_text
FROM pair AS p
LEFT JOIN densities AS f ON f.dict_id = p.dict_id AND f.layer = p.layer AND f.feature = p.feature
LEFT JOIN densities AS n ON n.dict_id = p.dict_id AND n.layer = p.layer AND n.feature = p.neighbour
LEFT JOIN texts AS b ON b.dict_id = p.dict_id AND b.layer = p.layer AND b.feature = p.feature
LEFT JOIN texts AS c ON c.dict_id = p.dict_id AND c.layer = p.layer AND c.feature = p.neighbour
ORDER BY p.cosine DESC, p.dict_id, p.layer, p.feature, p.neighbour
