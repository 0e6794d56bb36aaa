-- Features of different layers that fire together most often.
-- Grain: one row per dict_id, source_layer, source_feature, target_layer, target_feature.
-- Order: coactivation, highest first, then dict_id, source and target.
-- Reads: best_explanations, edges_into, features.
-- Parameters:
--   $max_density: number = 0.1  no features that fire on more than this share of tokens (0 to 1)
--   $dict_id: text = NULL       only this dictionary
--   $limit: integer = 100       at most this many rows
-- Of pairs that have an edge in feature_edges. coactivation: share of tokens on which both fire.
-- The best of a part of the edges bound the coactivation that the last of the rows can have; edges below it are passed over.

WITH dense AS (
    SELECT dict_id, layer, feature FROM features
    WHERE density > $max_density::DOUBLE AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
), part AS (
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, coactivation FROM edges_into
    WHERE coactivation > 0 AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    LIMIT 1000000
), least AS (
    SELECT if(count(*) < $limit::BIGINT, NULL, min(coactivation)) AS coactivation
    FROM (SELECT e.coactivation FROM part AS e
          ANTI JOIN dense AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
          ANTI JOIN dense AS t ON t.dict_id = e.dict_id AND t.layer = e.target_layer AND t.feature = e.target_feature
          ORDER BY e.coactivation DESC LIMIT $limit::BIGINT)
), enough AS MATERIALIZED (  -- before the joins, which DuckDB would make first where it takes the edges of a dictionary for few
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, coactivation FROM edges_into
    WHERE coactivation > 0 AND coactivation >= (SELECT coalesce(coactivation, 0) FROM least)
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
), pair AS MATERIALIZED (
    SELECT e.* FROM enough AS e
    ANTI JOIN dense AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
    ANTI JOIN dense AS t ON t.dict_id = e.dict_id AND t.layer = e.target_layer AND t.feature = e.target_feature
    ORDER BY e.coactivation DESC, e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature
    LIMIT $limit::BIGINT
), ends AS MATERIALIZED (
    SELECT dict_id, source_layer AS layer, source_feature AS feature FROM pair
    UNION
    SELECT dict_id, target_layer, target_feature FROM pair
), weights AS MATERIALIZED (  -- apart, so that they are unpacked of the rows alone
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, virtual_weight, twera FROM edges_into
    WHERE coactivation >= (SELECT min(coactivation) FROM pair) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
), texts AS MATERIALIZED (
    SELECT dict_id, layer, feature, text FROM (FROM best_explanations WHERE place IN (SELECT feature::BIGINT * 65536 + layer FROM ends))
    SEMI JOIN ends USING (dict_id, layer, feature)
), densities AS MATERIALIZED (
    SELECT dict_id, layer, feature, density FROM features SEMI JOIN ends USING (dict_id, layer, feature)
)
SELECT p.*, w.virtual_weight, w.twera, f.density AS source_density, g.density AS target_density, b.text AS source_text, c.text AS target_text
FROM pair AS p
JOIN weights AS w USING (dict_id, source_layer, source_feature, target_layer, target_feature)
LEFT JOIN densities AS f ON f.dict_id = p.dict_id AND f.layer = p.source_layer AND f.feature = p.source_feature
LEFT JOIN densities AS g ON g.dict_id = p.dict_id AND g.layer = p.target_layer AND g.feature = p.target_feature
LEFT JOIN texts AS b ON b.dict_id = p.dict_id AND b.layer = p.source_layer AND b.feature = p.source_feature
LEFT JOIN texts AS c ON c.dict_id = p.dict_id AND c.layer = p.target_layer AND c.feature = p.target_feature
ORDER BY p.coactivation DESC, p.dict_id, p.source_layer, p.source_feature, p.target_layer, p.target_feature
