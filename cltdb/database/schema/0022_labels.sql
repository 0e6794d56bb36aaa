-- On which labels of the text features fire, and metrics of each label's text.

CREATE TABLE feature_labels (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    label VARCHAR NOT NULL,
    tokens BIGINT NOT NULL,
    firings BIGINT NOT NULL,
    mass DOUBLE NOT NULL,
    rate DOUBLE NOT NULL,
    matched_rate DOUBLE NOT NULL,
    share DOUBLE NOT NULL,
    artifact_key VARCHAR
);

COMMENT ON TABLE feature_labels IS 'One row per feature that fires on text with a label and label of the harvest''s text, labels on which it never fires included. There where the spec names labels (activations.text.label_column, or sources with different labels). Tokens without a label are not counted. Key: dict_id, layer, feature, label. Refers to: features (dict_id, layer, feature). Export folders: dict_id.';
COMMENT ON COLUMN feature_labels.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN feature_labels.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN feature_labels.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN feature_labels.label IS 'Label of the text, such as a language.';
COMMENT ON COLUMN feature_labels.tokens IS 'Ordinary tokens of the label that the harvest saw (at least 1); the same for all features.';
COMMENT ON COLUMN feature_labels.firings IS 'On how many of them the feature is active (at least 0).';
COMMENT ON COLUMN feature_labels.mass IS 'Sum of its activations on them (at least 0).';
COMMENT ON COLUMN feature_labels.rate IS 'firings / tokens (0 to 1).';
COMMENT ON COLUMN feature_labels.matched_rate IS 'The rate at equal token frequency (0 to 1): the mean, over the different tokens that the label''s text has, of the share of their occurrences on which the feature is active. Each of these tokens counts the same, however often it occurs.';
COMMENT ON COLUMN feature_labels.share IS 'rate / sum of the rates of all labels (0 to 1): where the feature would fire if all labels had equally many tokens.';
COMMENT ON COLUMN feature_labels.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

ALTER TABLE features ADD COLUMN label_entropy DOUBLE;
ALTER TABLE features ADD COLUMN label_information_bits DOUBLE;
ALTER TABLE features ADD COLUMN label_information_matched_bits DOUBLE;
COMMENT ON COLUMN features.label_entropy IS 'Entropy of the feature''s shares of the labels (feature_labels.share), divided by the logarithm of the number of all labels of the text (0 to 1): 0 where it fires on one label alone, 1 where on all at the same rate. NULL where it never fires on text with a label, or where none was counted.';
COMMENT ON COLUMN features.label_information_bits IS 'Mutual information of firing with the label, in bits per token (at least 0), of a token whose label is drawn uniformly: H(mean of the rates) - mean of H(rate) over the labels, H(p) = -p log2 p - (1 - p) log2 (1 - p). How many tokens each label has changes nothing. NULL where no label was counted.';
COMMENT ON COLUMN features.label_information_matched_bits IS 'The same at equal token frequency (at least 0), of feature_labels.matched_rate. A feature that keeps half of label_information_bits or more is one of labels; one that keeps less fires on frequent tokens of a label.';

ALTER TABLE metrics ADD COLUMN label VARCHAR;

COMMENT ON TABLE metrics IS 'One row per number that was measured while training or evaluating. Key: dict_id, stage, step, layer, name, variant, label. Replaced together: dict_id, stage. Refers to: dictionaries (dict_id). Export folders: dict_id.';
COMMENT ON COLUMN metrics.label IS 'Label of the text that the number is of, such as a language: of its tokens alone. NULL: of all text.';
