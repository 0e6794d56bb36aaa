-- The edges that two queries rank over a whole dictionary, a few of each layer: to read the measures of 18 million edges for 100 of them took half a second.

CREATE TABLE strongest_edges (
    dict_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    source_layer INTEGER NOT NULL,
    source_feature INTEGER NOT NULL,
    target_layer INTEGER NOT NULL,
    target_feature INTEGER NOT NULL,
    effect FLOAT,
    virtual_weight FLOAT,
    twera FLOAT,
    coactivation DOUBLE NOT NULL,
    source_density DOUBLE,
    target_density DOUBLE,
    left_out DOUBLE
);

COMMENT ON TABLE strongest_edges IS 'The 200 foremost edges into each layer, of two kinds, as inhibitory_edges and coactivating_pairs rank them: inhibits, of negative effect and a coactivation of at most 0.001, the most negative effect first; together, between features of a density of at most 0.1, the highest coactivation first. Key: dict_id, kind, target_layer, target_feature, source_layer, source_feature. Replaced together: dict_id, target_layer. Derived from: feature_edges, features. Export folders: dict_id.';
COMMENT ON COLUMN strongest_edges.dict_id IS 'As edges_into.dict_id.';
COMMENT ON COLUMN strongest_edges.kind IS 'One of inhibits or together.';
COMMENT ON COLUMN strongest_edges.source_layer IS 'As edges_into.source_layer.';
COMMENT ON COLUMN strongest_edges.source_feature IS 'As edges_into.source_feature.';
COMMENT ON COLUMN strongest_edges.target_layer IS 'As edges_into.target_layer.';
COMMENT ON COLUMN strongest_edges.target_feature IS 'As edges_into.target_feature.';
COMMENT ON COLUMN strongest_edges.effect IS 'As edges_into.effect.';
COMMENT ON COLUMN strongest_edges.virtual_weight IS 'As edges_into.virtual_weight.';
COMMENT ON COLUMN strongest_edges.twera IS 'As edges_into.twera.';
COMMENT ON COLUMN strongest_edges.coactivation IS 'As edges_into.coactivation.';
COMMENT ON COLUMN strongest_edges.source_density IS 'features.density of the source.';
COMMENT ON COLUMN strongest_edges.target_density IS 'features.density of the target.';
COMMENT ON COLUMN strongest_edges.left_out IS 'effect or coactivation of the first edge of the kind into the layer that is not here; NULL where all are here.';

INSERT INTO strongest_edges BY NAME
WITH dense AS (
    SELECT dict_id, layer, feature FROM features WHERE density > 0.1
), inhibits AS NOT MATERIALIZED (
    SELECT * EXCLUDE (era, target_place) FROM edges_into WHERE effect < 0 AND coactivation <= 1e-3
), together AS NOT MATERIALIZED (
    SELECT * EXCLUDE (era, target_place) FROM edges_into AS e
    ANTI JOIN dense AS s ON s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
    ANTI JOIN dense AS t ON t.dict_id = e.dict_id AND t.layer = e.target_layer AND t.feature = e.target_feature
    WHERE e.coactivation > 0
), ranked AS (
    SELECT 'inhibits' AS kind, e.*, e.effect::DOUBLE AS strength,
           row_number() OVER (PARTITION BY dict_id, target_layer ORDER BY effect, source_layer, source_feature, target_feature) AS place
    FROM inhibits AS e
    JOIN (SELECT dict_id, target_layer, list_max(min(effect, 201)) AS last FROM inhibits GROUP BY ALL) AS l USING (dict_id, target_layer)
    WHERE e.effect <= l.last
    UNION ALL BY NAME
    SELECT 'together' AS kind, e.*, e.coactivation AS strength,
           row_number() OVER (PARTITION BY dict_id, target_layer ORDER BY coactivation DESC, source_layer, source_feature, target_feature) AS place
    FROM together AS e
    JOIN (SELECT dict_id, target_layer, list_min(max(coactivation, 201)) AS last FROM together GROUP BY ALL) AS l USING (dict_id, target_layer)
    WHERE e.coactivation >= l.last
), kept AS (
    SELECT *, any_value(strength) FILTER (place = 201) OVER (PARTITION BY dict_id, kind, target_layer) AS left_out FROM ranked QUALIFY place <= 200
)
SELECT k.* EXCLUDE (strength, place), s.density AS source_density, t.density AS target_density
FROM kept AS k
LEFT JOIN features AS s ON s.dict_id = k.dict_id AND s.layer = k.source_layer AND s.feature = k.source_feature
LEFT JOIN features AS t ON t.dict_id = k.dict_id AND t.layer = k.target_layer AND t.feature = k.target_feature
ORDER BY k.dict_id, k.target_layer, k.target_feature, k.kind, k.source_layer, k.source_feature;
