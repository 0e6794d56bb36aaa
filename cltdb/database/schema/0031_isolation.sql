-- What else moves when one feature is raised, and whether a fact follows its feature.

CREATE TABLE isolation (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    multiple DOUBLE NOT NULL,
    concept VARCHAR,
    is_sampled BOOLEAN,
    high DOUBLE,
    decoder_norm DOUBLE,
    decoder_overlap DOUBLE,
    n_prompts INTEGER,
    leakage_same DOUBLE,
    leakage_later DOUBLE,
    own_response DOUBLE,
    most_layer INTEGER,
    most_feature INTEGER,
    most_change DOUBLE,
    n_unrelated INTEGER,
    kl_nats DOUBLE,
    n_drop INTEGER,
    success_drop DOUBLE,
    n_include INTEGER,
    success_include DOUBLE,
    artifact_key VARCHAR
);

COMMENT ON TABLE isolation IS 'One row per feature and multiple of its own scale by which it was raised (evaluate.isolation): what else moved, while the model itself responded. Changes are those of activation times decoder norm (all target layers together) at the position where it was raised, means over the same prompts for all features. Key: dict_id, layer, feature, multiple. Replaced together: dict_id. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN isolation.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN isolation.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN isolation.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN isolation.multiple IS 'What was added to its activation, in multiples of high; in exchanges of facts the value of the feature that takes the other''s place, in its own high.';
COMMENT ON COLUMN isolation.concept IS 'Concept that has this feature as its own in the layer, such as a country: the one of highest contrast (evaluate.isolation.facts); NULL of others.';
COMMENT ON COLUMN isolation.is_sampled IS 'True of the features that were drawn: take means over these alone. False of those that are there for their concept.';
COMMENT ON COLUMN isolation.high IS 'Scale of the feature: 99th percentile of its activations above 0 on the held-out text (at least 0), in model units.';
COMMENT ON COLUMN isolation.decoder_norm IS 'Norm of its decoders, all target layers together (at least 0).';
COMMENT ON COLUMN isolation.decoder_overlap IS 'Sum over the other features of its layer of the absolute cosine of their decoders with its own, all target layers together (at least 0).';
COMMENT ON COLUMN isolation.n_prompts IS 'Prompts in which it was raised, at the last position (at least 1).';
COMMENT ON COLUMN isolation.leakage_same IS 'Change of the other features of its layer, summed up, over its own (at least 0), when the changed place is encoded again. NULL of a transcoder, which does not read what it writes in the same layer.';
COMMENT ON COLUMN isolation.leakage_later IS 'Change of the features of all later layers, summed up, over its own (at least 0). NULL in the last layer.';
COMMENT ON COLUMN isolation.own_response IS 'By how much it is read to have risen when the changed place is encoded again, over what was added; 1 where its encoder finds what its decoder wrote. NULL of a transcoder.';
COMMENT ON COLUMN isolation.most_layer IS 'Layer of the other feature that changed most, 0 first; NULL where none changed.';
COMMENT ON COLUMN isolation.most_feature IS 'Index in its layer of the other feature that changed most, 0 first.';
COMMENT ON COLUMN isolation.most_change IS 'Change of this other feature over that of the feature itself (at least 0).';
COMMENT ON COLUMN isolation.n_unrelated IS 'Prompts in which the feature fires nowhere by itself (at least 0).';
COMMENT ON COLUMN isolation.kl_nats IS 'Mean KL divergence of the next token''s distribution from that of the untouched model on these prompts, in nats; NULL where there are none.';
COMMENT ON COLUMN isolation.n_drop IS 'Exchanges in which it was set to 0 and another concept''s feature took its place (at least 0); NULL of features without a concept.';
COMMENT ON COLUMN isolation.success_drop IS 'Share of these after which the likeliest next token is no more the answer for its concept (0 to 1).';
COMMENT ON COLUMN isolation.n_include IS 'Exchanges in which it took the place of another concept''s feature (at least 0).';
COMMENT ON COLUMN isolation.success_include IS 'Share of these after which the likeliest next token is the answer for its concept (0 to 1).';
COMMENT ON COLUMN isolation.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';
