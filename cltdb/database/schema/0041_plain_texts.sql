-- The texts of some twenty features, of any layers, are found without reading and unpacking all those of their dictionary: by one number, since
-- DuckDB passes rows over by a join on one column alone, and as they are, since compressed texts are unpacked by thousands.

CREATE TABLE with_plain_texts (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    side VARCHAR NOT NULL,
    explainer VARCHAR NOT NULL,
    text VARCHAR USING COMPRESSION uncompressed,
    score DOUBLE,
    detection DOUBLE,
    fuzzing DOUBLE,
    text_md5 VARCHAR,
    place BIGINT
);

INSERT INTO with_plain_texts BY NAME SELECT *, feature::BIGINT * 65536 + layer AS place FROM best_explanations ORDER BY dict_id, layer, feature;
DROP TABLE best_explanations;
ALTER TABLE with_plain_texts RENAME TO best_explanations;

COMMENT ON TABLE best_explanations IS 'One row per feature that is explained: its best explanation. Explanations of side input come before those of side output, then the highest score counts, then the explainer''s name. Baselines never count. Key: dict_id, layer, feature. Replaced together: dict_id, layer. Refers to: features (dict_id, layer, feature). Derived from: explanations, scores. Export folders: dict_id.';
COMMENT ON COLUMN best_explanations.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN best_explanations.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN best_explanations.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN best_explanations.side IS 'input: the text says what makes the feature fire; output: what the feature writes.';
COMMENT ON COLUMN best_explanations.explainer IS 'Who wrote it, as in explanations.explainer.';
COMMENT ON COLUMN best_explanations.text IS 'The explanation.';
COMMENT ON COLUMN best_explanations.score IS 'Its score: detection where that was measured, else fuzzing, else the mean of the others (0 to 1).';
COMMENT ON COLUMN best_explanations.detection IS 'Its balanced accuracy in detection (0 to 1).';
COMMENT ON COLUMN best_explanations.fuzzing IS 'Its balanced accuracy in fuzzing (0 to 1).';
COMMENT ON COLUMN best_explanations.text_md5 IS 'md5(text), by which text_embeddings knows it.';
COMMENT ON COLUMN best_explanations.place IS 'feature * 65536 + layer: one number for both, by which the texts of a few features are found without reading the others.';
