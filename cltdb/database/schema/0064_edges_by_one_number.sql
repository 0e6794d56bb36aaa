-- The edges of a few features are found by one number for layer and feature: DuckDB passes row groups over by the values of one column alone. By two,
-- feature_circuit asked for the edges of each feature of its second step on their own. ALTER COLUMN writes the one column, and no other anew.

ALTER TABLE feature_edges ADD COLUMN source_place BIGINT;
ALTER TABLE feature_edges ALTER source_place TYPE BIGINT USING source_layer::BIGINT * 4294967296 + source_feature;
ALTER TABLE edges_into ADD COLUMN target_place BIGINT;
ALTER TABLE edges_into ALTER target_place TYPE BIGINT USING target_layer::BIGINT * 4294967296 + target_feature;

COMMENT ON COLUMN feature_edges.source_place IS 'source_layer * 4294967296 + source_feature: one number for both, by which the edges of a few features are found without reading the others. The loader makes it.';
COMMENT ON COLUMN edges_into.target_place IS 'target_layer * 4294967296 + target_feature: one number for both, by which the edges into a few features are found without reading the others.';
