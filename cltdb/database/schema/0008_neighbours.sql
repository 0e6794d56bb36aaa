-- Features with similar decoder vectors, and the labels of each feature's windows.

CREATE TABLE feature_neighbours (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    neighbour INTEGER,
    cosine FLOAT,
    artifact_key VARCHAR
);

COMMENT ON TABLE feature_neighbours IS 'One row per feature and feature of the same layer whose decoder vector is among the most similar. Key: dict_id, layer, feature, rank. Replaced together: dict_id, layer. Refers to: features (dict_id, layer, feature), features (dict_id, layer, neighbour = feature). Export folders: dict_id.';
COMMENT ON COLUMN feature_neighbours.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN feature_neighbours.layer IS 'Layer that both features read from, 0 first.';
COMMENT ON COLUMN feature_neighbours.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN feature_neighbours.rank IS 'Place among its neighbours, 0 the most similar.';
COMMENT ON COLUMN feature_neighbours.neighbour IS 'Index of the other feature in the layer, 0 first.';
COMMENT ON COLUMN feature_neighbours.cosine IS 'Cosine between the decoder vectors of the two (-1 to 1), those of all target layers together.';
COMMENT ON COLUMN feature_neighbours.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

CREATE TABLE window_labels (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    label VARCHAR NOT NULL,
    n_windows BIGINT,
    n_labelled BIGINT
);

COMMENT ON TABLE window_labels IS 'One row per feature and label that its windows have. Windows without a label are not counted. Key: dict_id, layer, feature, label. Replaced together: dict_id, layer. Refers to: features (dict_id, layer, feature). Derived from: windows. Export folders: dict_id.';
COMMENT ON COLUMN window_labels.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN window_labels.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN window_labels.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN window_labels.label IS 'Label of the text source, such as a language.';
COMMENT ON COLUMN window_labels.n_windows IS 'Rows of table windows with it: a feature''s windows are its strongest activations and samples of the others, so this is no share of the tokens on which it fires.';
COMMENT ON COLUMN window_labels.n_labelled IS 'Rows of table windows of the feature with any label.';

INSERT INTO stale_groups SELECT DISTINCT 'window_labels', dict_id, layer FROM windows;
