-- The features of the same layer whose decoder vectors are most similar to that of one feature.
-- Grain: one row per rank.
-- Order: rank, the most similar first.
-- Reads: best_explanations, feature_neighbours, features.
-- Parameters:
--   $dict_id: text        the dictionary
--   $layer: integer       the layer the feature reads from
--   $feature: integer     its index in the layer
--   $limit: integer = 10  at most this many rows
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222
-- A decoder vector here is that of all target layers together.

WITH near AS (
    SELECT rank, neighbour, cosine FROM feature_neighbours
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER AND rank < $limit::BIGINT
)
SELECT n.rank, n.neighbour, n.cosine, f.density, f.max_activation, b.text, b.score
FROM near AS n
LEFT JOIN features AS f ON f.dict_id = $dict_id::VARCHAR AND f.layer = $layer::INTEGER AND f.feature = n.neighbour
LEFT JOIN best_explanations AS b ON b.dict_id = $dict_id::VARCHAR AND b.layer = $layer::INTEGER AND b.feature = n.neighbour
ORDER BY n.rank
