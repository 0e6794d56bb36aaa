-- Does the model answer under another label when label features are set?

CREATE TABLE substitutions (
    groups_id VARCHAR NOT NULL,
    dict_id VARCHAR,
    label_from VARCHAR NOT NULL,
    label_to VARCHAR NOT NULL,
    part VARCHAR NOT NULL,
    control VARCHAR NOT NULL,
    n_features INTEGER NOT NULL,
    positions VARCHAR NOT NULL,
    suppress DOUBLE NOT NULL,
    boost DOUBLE NOT NULL,
    is_best BOOLEAN,
    n INTEGER,
    rate_label DOUBLE,
    rate_concept DOUBLE,
    rate_right DOUBLE,
    kl_nats DOUBLE,
    text_rate_label DOUBLE,
    text_rate_right DOUBLE,
    artifact_key VARCHAR
);

COMMENT ON TABLE substitutions IS 'One row per ordered pair of labels and grid point at which the features of one label were held down and those of the other set (groups.substitute): what the model answered to the prompts of the first, greedily. Of the concepts whose answers differ under the two labels, one half chooses the best point, on the other half it is measured beside its controls. Key: groups_id, label_from, label_to, part, control, n_features, positions, suppress, boost. Replaced together: groups_id. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN substitutions.groups_id IS 'Comparison of labels, as in group_prompts.groups_id.';
COMMENT ON COLUMN substitutions.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN substitutions.label_from IS 'Label of the prompts, whose features are held down.';
COMMENT ON COLUMN substitutions.label_to IS 'Label whose features are set.';
COMMENT ON COLUMN substitutions.part IS 'One of choice or test: the half of the concepts on which the best point is chosen, with all points; the other half, with the best point alone.';
COMMENT ON COLUMN substitutions.control IS 'One of none, random or reverse: label features; in the place of each a random feature of its layer and nearly its rate of firing; the features of label_to held down and those of label_from set.';
COMMENT ON COLUMN substitutions.n_features IS 'How many features of each label: those of highest contrast in label_features (at least 1).';
COMMENT ON COLUMN substitutions.positions IS 'One of last or all: set from the prompt''s last position on, or at all positions after BOS.';
COMMENT ON COLUMN substitutions.suppress IS 'Value of the features that are held down, in multiples of label_features.high.';
COMMENT ON COLUMN substitutions.boost IS 'Value of the features that are set, in multiples of label_features.high.';
COMMENT ON COLUMN substitutions.is_best IS 'True of the point with the highest rate_right on the half that chooses, of equal ones that of least kl_nats; and of part test.';
COMMENT ON COLUMN substitutions.n IS 'Prompts, one per concept (at least 1).';
COMMENT ON COLUMN substitutions.rate_label IS 'Share of prompts whose likeliest next token is an answer under label_to, of whatever concept, and none under label_from (0 to 1).';
COMMENT ON COLUMN substitutions.rate_concept IS 'Share whose likeliest next token is the answer of the concept under one of the two labels (0 to 1).';
COMMENT ON COLUMN substitutions.rate_right IS 'Share whose likeliest next token is the answer of the concept under label_to (0 to 1).';
COMMENT ON COLUMN substitutions.kl_nats IS 'Mean KL divergence of the next token''s distribution from that of the untouched model, in nats (at least 0).';
COMMENT ON COLUMN substitutions.text_rate_label IS 'As rate_label, of any token of the greedy continuation (0 to 1); of part test.';
COMMENT ON COLUMN substitutions.text_rate_right IS 'As rate_right, of any token of the greedy continuation (0 to 1); of part test.';
COMMENT ON COLUMN substitutions.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';
