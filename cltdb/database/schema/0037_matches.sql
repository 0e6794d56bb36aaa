-- Which features of two dictionaries are the same.

CREATE TABLE feature_matches (
    dict_a VARCHAR NOT NULL,
    layer_a INTEGER,
    feature_a INTEGER,
    dict_b VARCHAR NOT NULL,
    layer_b INTEGER,
    feature_b INTEGER,
    decoder_cosine DOUBLE,
    encoder_cosine DOUBLE,
    activation_correlation DOUBLE,
    relation VARCHAR NOT NULL,
    artifact_key VARCHAR
);

COMMENT ON TABLE feature_matches IS 'One row per relation between features of a layer of two dictionaries, which are matched one to one so that their similarities (dictionary_matches.matched_by) have the largest sum. A feature of a is in one row as matched, merged or vanished, one of b in one as matched, split or appeared; besides, the first may have been split into several, and the second be several that merged. Key: dict_a, layer_a, feature_a, dict_b, layer_b, feature_b. Replaced together: dict_a, dict_b. Export folders: dict_a, dict_b.';
COMMENT ON COLUMN feature_matches.dict_a IS 'The first dictionary, as in dictionaries.dict_id; of one that came from a folder without an id, the folder''s name.';
COMMENT ON COLUMN feature_matches.layer_a IS 'Layer that the feature of a reads from, 0 first; NULL of one that appeared in b.';
COMMENT ON COLUMN feature_matches.feature_a IS 'Index of the feature of a in its layer, 0 first; NULL of one that appeared in b.';
COMMENT ON COLUMN feature_matches.dict_b IS 'The second dictionary, as in dictionaries.dict_id; of one that came from a folder without an id, the folder''s name.';
COMMENT ON COLUMN feature_matches.layer_b IS 'Layer that the feature of b reads from, 0 first; NULL of one that vanished from a.';
COMMENT ON COLUMN feature_matches.feature_b IS 'Index of the feature of b in its layer, 0 first; NULL of one that vanished from a.';
COMMENT ON COLUMN feature_matches.decoder_cosine IS 'Cosine between their decoders, to all target layers that both dictionaries write to together (-1 to 1). Where pairs were chosen by it, of what appeared or vanished the highest with any feature of the other dictionary. NULL where the dictionaries are of different models.';
COMMENT ON COLUMN feature_matches.encoder_cosine IS 'Cosine between their encoders (-1 to 1); NULL of what appeared or vanished, and where the dictionaries are of different models.';
COMMENT ON COLUMN feature_matches.activation_correlation IS 'Pearson correlation of their activations over the tokens of one text (-1 to 1). Where pairs were chosen by it, of what appeared or vanished the highest with any feature of the other dictionary. NULL where no text was read, or one of the two never fires on it.';
COMMENT ON COLUMN feature_matches.relation IS 'One of matched, split, merged, appeared or vanished. matched: assigned to each other, and more similar than match.threshold. split: the feature of b has no such partner, but its most similar one of a, which is here, is above the threshold. merged: the same with a and b exchanged. appeared, vanished: no feature of the other dictionary is above the threshold.';
COMMENT ON COLUMN feature_matches.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

CREATE TABLE dictionary_matches (
    dict_a VARCHAR NOT NULL,
    dict_b VARCHAR NOT NULL,
    layer INTEGER,
    matched_by VARCHAR NOT NULL,
    above DOUBLE NOT NULL,
    n_a BIGINT NOT NULL,
    n_b BIGINT NOT NULL,
    n_matched BIGINT NOT NULL,
    share_a DOUBLE NOT NULL,
    share_a_low DOUBLE NOT NULL,
    share_a_high DOUBLE NOT NULL,
    share_b DOUBLE NOT NULL,
    share_b_low DOUBLE NOT NULL,
    share_b_high DOUBLE NOT NULL,
    control_share DOUBLE NOT NULL,
    highest_a DOUBLE NOT NULL,
    highest_b DOUBLE NOT NULL,
    control_highest DOUBLE NOT NULL,
    n_tokens BIGINT,
    artifact_key VARCHAR
);

COMMENT ON TABLE dictionary_matches IS 'One row per pair of dictionaries, layer and least similarity: how many of their features were matched one to one, beside the level of chance. Key: dict_a, dict_b, layer, above. Replaced together: dict_a, dict_b.';
COMMENT ON COLUMN dictionary_matches.dict_a IS 'The first dictionary, as in feature_matches.dict_a.';
COMMENT ON COLUMN dictionary_matches.dict_b IS 'The second dictionary, as in feature_matches.dict_b.';
COMMENT ON COLUMN dictionary_matches.layer IS 'Layer, 0 first; NULL: the features of all layers together.';
COMMENT ON COLUMN dictionary_matches.matched_by IS 'One of decoder or activations: the similarity is the cosine of decoders, or the correlation of activations.';
COMMENT ON COLUMN dictionary_matches.above IS 'Pairs count that are more similar than this: 0.7 and 0.9 (0 to 1).';
COMMENT ON COLUMN dictionary_matches.n_a IS 'Features of the first dictionary that were compared: those with a decoder, of activations those that fire on the text (at least 1).';
COMMENT ON COLUMN dictionary_matches.n_b IS 'Features of the second dictionary that were compared (at least 1).';
COMMENT ON COLUMN dictionary_matches.n_matched IS 'Pairs above it (at least 0).';
COMMENT ON COLUMN dictionary_matches.share_a IS 'n_matched / n_a (0 to 1).';
COMMENT ON COLUMN dictionary_matches.share_a_low IS 'Lower end of the 95 % interval of share_a, by bootstrap over the features of a (0 to 1).';
COMMENT ON COLUMN dictionary_matches.share_a_high IS 'Upper end of the 95 % interval of share_a (0 to 1).';
COMMENT ON COLUMN dictionary_matches.share_b IS 'n_matched / n_b (0 to 1).';
COMMENT ON COLUMN dictionary_matches.share_b_low IS 'Lower end of the 95 % interval of share_b, by bootstrap over the features of b (0 to 1).';
COMMENT ON COLUMN dictionary_matches.share_b_high IS 'Upper end of the 95 % interval of share_b (0 to 1).';
COMMENT ON COLUMN dictionary_matches.control_share IS 'share_a of the control: of decoders, with all those of the first dictionary turned by one random rotation; of activations, with those of the first dictionary at other tokens (0 to 1).';
COMMENT ON COLUMN dictionary_matches.highest_a IS 'Mean over the features of a of the highest similarity with any feature of b (-1 to 1); the same in all rows of a layer.';
COMMENT ON COLUMN dictionary_matches.highest_b IS 'Mean over the features of b of the highest similarity with any feature of a (-1 to 1); the same in all rows of a layer.';
COMMENT ON COLUMN dictionary_matches.control_highest IS 'highest_a of the control (-1 to 1).';
COMMENT ON COLUMN dictionary_matches.n_tokens IS 'Tokens of text that activations were correlated over (at least 1); NULL where none was read.';
COMMENT ON COLUMN dictionary_matches.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';
