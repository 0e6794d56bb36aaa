-- Features of different layers that fire together most often.
-- Grain: one row per dict_id, source_layer, source_feature, target_layer, target_feature.
-- Order: coactivation, highest first, then dict_id, source and target.
-- Reads: best_explanations, edges_into, features, stale_groups, strongest_edges.
-- Parameters:
--   $max_density: number = 0.1  no features that fire on more than this share of tokens (0 to 1)
--   $dict_id: text = NULL       only this dictionary
--   $limit: integer = 100       at most this many rows
-- Of pairs that have an edge in feature_edges. coactivation: share of tokens on which both fire.
-- The edges that strongest_edges keeps are the answer where the last of them comes before all that it leaves out. Else all edges are read: the best
-- of a part of them bound the coactivation that the last of the rows can have; edges below it are passed over.

WITH kept AS MATERIALIZED (
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, coactivation, virtual_weight, twera FROM strongest_edges
    WHERE kind = 'together' AND coalesce(source_density, 0) <= $max_density::DOUBLE AND coalesce(target_density, 0) <= $max_density::DOUBLE
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    ORDER BY coactivation DESC, dict_id, source_layer, source_feature, target_layer, target_feature
    LIMIT $limit::BIGINT
), answer AS MATERIALIZED (
    SELECT coalesce($max_density::DOUBLE <= 0.1 AND count(*) = $limit::BIGINT AND min(coactivation) > (
        SELECT coalesce(max(left_out), 0) FROM strongest_edges
        WHERE kind = 'together' AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    ) AND NOT EXISTS (FROM stale_groups WHERE derived = 'strongest_edges'), false) AS is_kept FROM kept
), dense AS (
    SELECT dict_id, layer, feature FROM features
    WHERE density > $max_density::DOUBLE AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
), part AS (
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, coactivation FROM edges_into
    WHERE coactivation > (SELECT if(is_kept, 'infinity'::DOUBLE, 0) FROM answer) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    LIMIT 1000000
), least AS (
    SELECT if(count(*) < $limit::BIGINT, NULL, min(coactivation)) AS coactivation
    FROM (SELECT e.coactivation FROM part AS e
          ANTI JOIN dense AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
          ANTI JOIN dense AS t ON t.dict_id = e.dict_id AND t.layer = e.target_layer AND t.feature = e.target_feature
          ORDER BY e.coactivation DESC LIMIT $limit::BIGINT)
), enough AS MATERIALIZED (  -- before the joins, which DuckDB would make first where it takes the edges of a dictionary for few
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, coactivation FROM edges_into
    WHERE coactivation > (SELECT if(is_kept, 'infinity'::DOUBLE, 0) FROM answer) AND coactivation >= (SELECT coalesce(coactivation, 0) FROM least)
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
), pair AS MATERIALIZED (
    SELECT e.* FROM enough AS e
    ANTI JOIN dense AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
    ANTI JOIN dense AS t ON t.dict_id = e.dict_id AND t.layer = e.target_layer AND t.feature = e.target_feature
    ORDER BY e.coactivation DESC, e.dict_id, e.source_layer, e.source_feature, e.target_layer, e.target_feature
    LIMIT $limit::BIGINT
), weights AS (  -- apart, so that they are unpacked of the rows alone
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, virtual_weight, twera FROM edges_into
    WHERE coactivation >= (SELECT min(coactivation) FROM pair) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
), found AS MATERIALIZED (
    FROM kept WHERE (SELECT is_kept FROM answer)
    UNION ALL
    SELECT p.*, w.virtual_weight, w.twera FROM pair AS p JOIN weights AS w USING (dict_id, source_layer, source_feature, target_layer, target_feature)
), ends AS MATERIALIZED (
    SELECT dict_id, source_layer AS layer, source_feature AS feature FROM found
    UNION
    SELECT dict_id, target_layer, target_feature FROM found
), texts AS MATERIALIZED (
    SELECT dict_id, layer, feature, text FROM (FROM best_explanations WHERE place IN (SELECT feature::BIGINT * 65536 + layer FROM ends))
    SEMI JOIN ends USING (dict_id, layer, feature)
), densities AS MATERIALIZED (
    SELECT dict_id, layer, feature, density FROM features SEMI JOIN ends USING (dict_id, layer, feature)
)
SELECT p.*, f.density AS source_density, g.density AS target_density, b.text AS source_text, c.text AS target_text
FROM found AS p
LEFT JOIN densities AS f ON f.dict_id = p.dict_id AND f.layer = p.source_layer AND f.feature = p.source_feature
LEFT JOIN densities AS g ON g.dict_id = p.dict_id AND g.layer = p.target_layer AND g.feature = p.target_feature
LEFT JOIN texts AS b ON b.dict_id = p.dict_id AND b.layer = p.source_layer AND b.feature = p.source_feature
LEFT JOIN texts AS c ON c.dict_id = p.dict_id AND c.layer = p.target_layer AND c.feature = p.target_feature
ORDER BY p.coactivation DESC, p.dict_id, p.source_layer, p.source_feature, p.target_layer, p.target_feature
