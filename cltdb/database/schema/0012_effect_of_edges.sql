-- What a source that fires adds to its target, stored beside the edge: to rank 17 million edges by it took half a second of products.

ALTER TABLE edges_into ADD COLUMN effect FLOAT;

COMMENT ON TABLE edges_into IS 'The rows of feature_edges once more, sorted by target: the edges into a feature lie beside each other. Key: dict_id, target_layer, target_feature, source_layer, source_feature. Replaced together: dict_id, target_layer. Derived from: feature_edges, features. Export folders: dict_id.';
COMMENT ON COLUMN edges_into.effect IS 'virtual_weight times features.mean_activation of the source: what a source that fires adds to the target''s pre-activation on average, in model units. NULL where that mean is unknown.';

UPDATE edges_into AS e SET effect = e.virtual_weight * s.mean_activation
FROM features AS s WHERE s.dict_id = e.dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature;
