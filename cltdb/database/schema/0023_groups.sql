-- What features the prompts of several labels, such as languages, have in common.

CREATE TABLE group_prompts (
    groups_id VARCHAR NOT NULL,
    dict_id VARCHAR,
    concept VARCHAR NOT NULL,
    label VARCHAR NOT NULL,
    prompt VARCHAR,
    target VARCHAR,
    tokens INTEGER[],
    target_token INTEGER,
    probability DOUBLE,
    top_token INTEGER,
    replacement_score DOUBLE,
    n_active INTEGER[],
    feature_influence DOUBLE[],
    error_influence DOUBLE[],
    artifact_key VARCHAR
);

CREATE TABLE group_overlaps (
    groups_id VARCHAR NOT NULL,
    dict_id VARCHAR,
    layer INTEGER NOT NULL,
    label_a VARCHAR,
    label_b VARCHAR,
    keyed_by VARCHAR NOT NULL,
    weighting VARCHAR NOT NULL,
    null_kind VARCHAR NOT NULL,
    value DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    corrected DOUBLE,
    corrected_ci_low DOUBLE,
    corrected_ci_high DOUBLE,
    n BIGINT,
    artifact_key VARCHAR
);

COMMENT ON TABLE group_prompts IS 'One row per prompt whose features were compared with those of the same concept under other labels (groups.prompts). Key: groups_id, concept, label. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN group_prompts.groups_id IS 'Comparison of labels: <experiment>-groups-<first 8 digits of its key>.';
COMMENT ON COLUMN group_prompts.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN group_prompts.concept IS 'What is asked, the same under all labels.';
COMMENT ON COLUMN group_prompts.label IS 'Label, such as a language (groups.by).';
COMMENT ON COLUMN group_prompts.prompt IS 'Text of the prompt.';
COMMENT ON COLUMN group_prompts.target IS 'The right next token, whose logit is explained; NULL where the prompts have none: then the likeliest tokens are.';
COMMENT ON COLUMN group_prompts.tokens IS 'Token ids of the prompt, BOS first.';
COMMENT ON COLUMN group_prompts.target_token IS 'Vocabulary id of target.';
COMMENT ON COLUMN group_prompts.probability IS 'The model''s probability of target (0 to 1).';
COMMENT ON COLUMN group_prompts.top_token IS 'Vocabulary id of the model''s likeliest next token.';
COMMENT ON COLUMN group_prompts.replacement_score IS 'Replacement score of the prompt''s graph (0 to 1), as in graphs.replacement_score.';
COMMENT ON COLUMN group_prompts.n_active IS 'Active features of each layer (at least 0), layer 0 first, over the prompt''s positions after BOS.';
COMMENT ON COLUMN group_prompts.feature_influence IS 'Influence of each layer''s features together (at least 0), layer 0 first; 1 is that of the answer. A path counts in each layer that it goes through.';
COMMENT ON COLUMN group_prompts.error_influence IS 'Influence of each layer''s errors together (at least 0), layer 0 first.';
COMMENT ON COLUMN group_prompts.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

COMMENT ON TABLE group_overlaps IS 'One row per layer, pair of labels and way of counting: how much prompts of one concept under two labels have in common, and beside it what prompts of two concepts have. Key: groups_id, layer, label_a, label_b, keyed_by, weighting, null_kind. Replaced together: groups_id. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN group_overlaps.groups_id IS 'Comparison of labels, as in group_prompts.groups_id.';
COMMENT ON COLUMN group_overlaps.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN group_overlaps.layer IS 'Layer of the features, 0 first.';
COMMENT ON COLUMN group_overlaps.label_a IS 'One label, before label_b in the alphabet; NULL: all pairs of labels together.';
COMMENT ON COLUMN group_overlaps.label_b IS 'The other label; NULL: all pairs of labels together.';
COMMENT ON COLUMN group_overlaps.keyed_by IS 'One of free or end: a feature counts at whatever position it is active; or at each position counted from the prompt''s end.';
COMMENT ON COLUMN group_overlaps.weighting IS 'One of none or influence: Jaccard of the sets of active features, shared ones over those of either; or the sum of the smaller over that of the larger influences on the answer.';
COMMENT ON COLUMN group_overlaps.null_kind IS 'One of none, same_label or other_label: prompts of one concept under the two labels; of two concepts under one of the labels; of two concepts, one under each label.';
COMMENT ON COLUMN group_overlaps.value IS 'Mean overlap of the pairs of prompts (0 to 1); NULL where no pair has anything there.';
COMMENT ON COLUMN group_overlaps.ci_low IS 'Lower end of its 95 % interval over concepts (0 to 1).';
COMMENT ON COLUMN group_overlaps.ci_high IS 'Upper end of its 95 % interval over concepts (0 to 1).';
COMMENT ON COLUMN group_overlaps.corrected IS 'Of a null: the overlap of one concept less value (-1 to 1). With null_kind other_label it is what the labels share because the concept is the same.';
COMMENT ON COLUMN group_overlaps.corrected_ci_low IS 'Lower end of its 95 % interval over concepts, both terms of the same resample.';
COMMENT ON COLUMN group_overlaps.corrected_ci_high IS 'Upper end of its 95 % interval over concepts.';
COMMENT ON COLUMN group_overlaps.n IS 'Pairs of prompts that value is the mean of (at least 0).';
COMMENT ON COLUMN group_overlaps.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';
