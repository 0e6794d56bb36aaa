-- Edges through attention heads by target: the few into one feature lay among all edges of the dictionary, since feature_edges is sorted by source,
-- and to find them took two thirds of the query head_edges.

CREATE TABLE head_edges_into (
    dict_id VARCHAR NOT NULL,
    target_layer INTEGER NOT NULL,
    target_feature INTEGER NOT NULL,
    source_layer INTEGER NOT NULL,
    source_feature INTEGER NOT NULL,
    via VARCHAR NOT NULL,
    virtual_weight FLOAT
);

COMMENT ON TABLE head_edges_into IS 'The rows of feature_edges through attention heads once more, sorted by target: the edges into a feature lie beside each other. Key: dict_id, target_layer, target_feature, source_layer, source_feature, via. Replaced together: dict_id, target_layer. Derived from: feature_edges. Export folders: dict_id.';
COMMENT ON COLUMN head_edges_into.dict_id IS 'As feature_edges.dict_id.';
COMMENT ON COLUMN head_edges_into.target_layer IS 'As feature_edges.target_layer.';
COMMENT ON COLUMN head_edges_into.target_feature IS 'As feature_edges.target_feature.';
COMMENT ON COLUMN head_edges_into.source_layer IS 'As feature_edges.source_layer.';
COMMENT ON COLUMN head_edges_into.source_feature IS 'As feature_edges.source_feature.';
COMMENT ON COLUMN head_edges_into.via IS 'As feature_edges.via.';
COMMENT ON COLUMN head_edges_into.virtual_weight IS 'As feature_edges.virtual_weight.';

INSERT INTO head_edges_into
SELECT dict_id, target_layer, target_feature, source_layer, source_feature, via, virtual_weight
FROM feature_edges
WHERE via IS NOT NULL
ORDER BY dict_id, target_layer, target_feature, source_layer, source_feature, via;
