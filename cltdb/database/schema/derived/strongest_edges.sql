WITH edge AS NOT MATERIALIZED (
    SELECT source_layer, source_feature, target_layer, target_feature, virtual_weight, twera, coactivation, effect FROM edges_into
    WHERE dict_id = $dict_id AND target_layer BETWEEN $first AND $last
), density AS (
    SELECT layer, feature, density FROM features WHERE dict_id = $dict_id
), dense AS (
    SELECT layer, feature FROM density WHERE density > 0.1
), inhibits AS NOT MATERIALIZED (
    FROM edge WHERE effect < 0 AND coactivation <= 1e-3
), together AS NOT MATERIALIZED (
    FROM edge AS e
    ANTI JOIN dense AS s ON s.layer = e.source_layer AND s.feature = e.source_feature
    ANTI JOIN dense AS t ON t.layer = e.target_layer AND t.feature = e.target_feature
    WHERE e.coactivation > 0
), ranked AS (  -- of those alone that are as strong as the last one, so that few are sorted
    SELECT 'inhibits' AS kind, e.*, e.effect::DOUBLE AS strength,
           row_number() OVER (PARTITION BY target_layer ORDER BY effect, source_layer, source_feature, target_feature) AS place
    FROM inhibits AS e
    JOIN (SELECT target_layer, list_max(min(effect, 201)) AS last FROM inhibits GROUP BY target_layer) AS l USING (target_layer)
    WHERE e.effect <= l.last
    UNION ALL
    SELECT 'together', e.*, e.coactivation,
           row_number() OVER (PARTITION BY target_layer ORDER BY coactivation DESC, source_layer, source_feature, target_feature)
    FROM together AS e
    JOIN (SELECT target_layer, list_min(max(coactivation, 201)) AS last FROM together GROUP BY target_layer) AS l USING (target_layer)
    WHERE e.coactivation >= l.last
), kept AS (
    SELECT *, any_value(strength) FILTER (place = 201) OVER (PARTITION BY kind, target_layer) AS left_out FROM ranked QUALIFY place <= 200
)
SELECT $dict_id::VARCHAR AS dict_id, k.kind, k.source_layer, k.source_feature, k.target_layer, k.target_feature, k.effect, k.virtual_weight, k.twera,
       k.coactivation, s.density AS source_density, t.density AS target_density, k.left_out
FROM kept AS k
LEFT JOIN density AS s ON s.layer = k.source_layer AND s.feature = k.source_feature
LEFT JOIN density AS t ON t.layer = k.target_layer AND t.feature = k.target_feature
ORDER BY k.target_layer, k.target_feature, k.kind, k.source_layer, k.source_feature
