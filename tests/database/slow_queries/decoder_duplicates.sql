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

WITH pair AS (
    SELECT dict_id, layer, least(feature, neighbour) AS feature, greatest(feature, neighbour) AS neighbour, max(cosine) AS cosine
    FROM feature_neighbours
    WHERE dict_id = coalesce($dict_id::VARCHAR, dict_id) AND layer = coalesce($layer::INTEGER, layer)
    GROUP BY ALL
)
SELECT p.dict_id, p.layer, p.feature, p.neighbour, p.cosine, f.density, n.density AS neighbour_density, b.text, c.text AS neighbour_text
FROM pair AS p
LEFT JOIN features AS f USING (dict_id, layer, feature)
LEFT JOIN features AS n ON n.dict_id = p.dict_id AND n.layer = p.layer AND n.feature = p.neighbour
LEFT JOIN best_explanations AS b ON b.dict_id = p.dict_id AND b.layer = p.layer AND b.feature = p.feature
LEFT JOIN best_explanations AS c ON c.dict_id = p.dict_id AND c.layer = p.layer AND c.feature = p.neighbour
WHERE p.cosine >= $min_cosine::DOUBLE
ORDER BY p.cosine DESC, p.dict_id, p.layer, p.feature, p.neighbour
LIMIT $limit::BIGINT
