-- Features that make an answer one of its label, and how well they tell the label of text.

CREATE TABLE label_features (
    groups_id VARCHAR NOT NULL,
    dict_id VARCHAR,
    label VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    rank INTEGER,
    recurrence DOUBLE,
    influence DOUBLE,
    contrast DOUBLE,
    embedding_share DOUBLE,
    probe_cosine DOUBLE,
    auc DOUBLE,
    auc_matched DOUBLE,
    high DOUBLE,
    artifact_key VARCHAR
);

CREATE TABLE label_scores (
    groups_id VARCHAR NOT NULL,
    dict_id VARCHAR,
    label VARCHAR NOT NULL,
    first_layer INTEGER NOT NULL,
    n_features INTEGER NOT NULL,
    auc DOUBLE,
    auc_matched DOUBLE,
    n_pieces INTEGER,
    artifact_key VARCHAR
);

COMMENT ON TABLE label_features IS 'One row per label, layer and feature that makes answers ones of the label: the features of highest contrast among those that recur over its prompts (groups.label_features). Influence is that on the logit of the label''s answer less the mean of those of all labels'' answers. Key: groups_id, label, layer, feature. Replaced together: groups_id. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN label_features.groups_id IS 'Comparison of labels, as in group_prompts.groups_id.';
COMMENT ON COLUMN label_features.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN label_features.label IS 'Label, such as a language.';
COMMENT ON COLUMN label_features.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN label_features.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN label_features.rank IS 'Place by contrast within label and layer, from 1 (at least 1).';
COMMENT ON COLUMN label_features.recurrence IS 'Share of the label''s prompts in which it is among the most influential features (0 to 1).';
COMMENT ON COLUMN label_features.influence IS 'Its mean influence on the label''s prompts (at least 0), all positions together; 1 is that of the answer.';
COMMENT ON COLUMN label_features.contrast IS 'influence less the mean influence on the prompts of the other labels (at least 0).';
COMMENT ON COLUMN label_features.embedding_share IS 'Share of its absolute incoming edges that comes straight from token embeddings (0 to 1), a mean over its places in the label''s prompts, weighted by their influence; NULL where these edges were not computed.';
COMMENT ON COLUMN label_features.probe_cosine IS 'Cosine (-1 to 1) of the direction of the residual stream that it reads with that of a logistic regression of the label on the MLP input of layer 1, less the mean of all labels'' directions. The probe was fitted on other text than auc is of.';
COMMENT ON COLUMN label_features.auc IS 'How well its mean activation on a piece of held-out text tells pieces of the label from those of another (0 to 1), the mean over the other labels: the probability that the piece of the label has more. 0.5: nothing.';
COMMENT ON COLUMN label_features.auc_matched IS 'The same at equal token frequency (0 to 1): tokens weighted so that all labels have the same share of each octave of how often a token occurs. NULL where no token is left.';
COMMENT ON COLUMN label_features.high IS '99th percentile of its activations above 0 on text of the label (at least 0), in model units; 0 where it never fires there.';
COMMENT ON COLUMN label_features.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

COMMENT ON TABLE label_scores IS 'One row per label, first layer and number of features: how well the label''s features of highest contrast tell its text together, each in units of label_features.high, added up. Key: groups_id, label, first_layer, n_features. Replaced together: groups_id. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN label_scores.groups_id IS 'Comparison of labels, as in group_prompts.groups_id.';
COMMENT ON COLUMN label_scores.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN label_scores.label IS 'Label, such as a language.';
COMMENT ON COLUMN label_scores.first_layer IS 'The features are of this layer, 0 first, and later ones.';
COMMENT ON COLUMN label_scores.n_features IS 'How many features: those of highest contrast (at least 1).';
COMMENT ON COLUMN label_scores.auc IS 'As label_features.auc, of the sum (0 to 1).';
COMMENT ON COLUMN label_scores.auc_matched IS 'As label_features.auc_matched, of the sum (0 to 1).';
COMMENT ON COLUMN label_scores.n_pieces IS 'Pieces of held-out text of the label (at least 1).';
COMMENT ON COLUMN label_scores.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';
