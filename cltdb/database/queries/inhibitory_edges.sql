-- Features that hold others down whatever the input: edges of negative virtual weight. effect: virtual weight times the mean activation of the
-- source, which is what a source that fires takes off the target's pre-activation on average.
-- Grain: one row per dict_id, source_layer, source_feature, target_layer, target_feature.
-- Order: effect, most negative first, then dict_id, source and target.
-- Reads: best_explanations, edges_into, features, stale_groups, strongest_edges.
-- Parameters:
--   $dict_id: text = NULL             only this dictionary
--   $max_coactivation: number = 1e-3  only pairs that fire together on at most this share of tokens
--   $limit: integer = 100             at most this many rows
-- The edges that strongest_edges keeps are the answer where the last of them comes before all that it leaves out; else all edges are read.

WITH kept AS MATERIALIZED (
    SELECT dict_id, source_layer, source_feature, target_layer, target_feature, effect, virtual_weight, coactivation FROM strongest_edges
    WHERE kind = 'inhibits' AND coactivation <= $max_coactivation::DOUBLE AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    ORDER BY effect, dict_id, source_layer, source_feature, target_layer, target_feature
    LIMIT $limit::BIGINT
), answer AS MATERIALIZED (
    SELECT coalesce($max_coactivation::DOUBLE <= 1e-3 AND count(*) = $limit::BIGINT AND max(effect) < (
        SELECT coalesce(min(left_out), 'infinity') FROM strongest_edges
        WHERE kind = 'inhibits' AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    ) AND NOT EXISTS (FROM stale_groups WHERE derived = 'strongest_edges'), false) AS is_kept FROM kept
), found AS MATERIALIZED (
    FROM kept WHERE (SELECT is_kept FROM answer)
    UNION ALL (
        SELECT dict_id, source_layer, source_feature, target_layer, target_feature, effect, virtual_weight, coactivation
        FROM edges_into
        WHERE virtual_weight < 0 AND coactivation <= $max_coactivation::DOUBLE AND target_layer > (SELECT if(is_kept, 2147483647, -1) FROM answer)
          AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
        ORDER BY effect, dict_id, source_layer, source_feature, target_layer, target_feature
        LIMIT $limit::BIGINT
    )
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
SELECT f.dict_id, f.source_layer, f.source_feature, f.target_layer, f.target_feature, f.effect, f.virtual_weight, f.coactivation,
       s.density AS source_density, t.density AS target_density, b.text AS source_text, c.text AS target_text
FROM found AS f
LEFT JOIN densities AS s ON s.dict_id = f.dict_id AND s.layer = f.source_layer AND s.feature = f.source_feature
LEFT JOIN densities AS t ON t.dict_id = f.dict_id AND t.layer = f.target_layer AND t.feature = f.target_feature
LEFT JOIN texts AS b ON b.dict_id = f.dict_id AND b.layer = f.source_layer AND b.feature = f.source_feature
LEFT JOIN texts AS c ON c.dict_id = f.dict_id AND c.layer = f.target_layer AND c.feature = f.target_feature
ORDER BY f.effect, f.dict_id, f.source_layer, f.source_feature, f.target_layer, f.target_feature
