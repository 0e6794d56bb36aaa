-- Windows as slices of text that is stored once, what is known of a feature's activations, and tables that are made from others (derived/).

CREATE TABLE harvested_text (
    dict_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    tokens INTEGER[],
    artifact_key VARCHAR
);

COMMENT ON TABLE harvested_text IS 'One row per sequence of the harvest''s text that a window comes from. Key: dict_id, sequence. Refers to: dictionaries (dict_id). Export folders: dict_id.';
COMMENT ON COLUMN harvested_text.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN harvested_text.sequence IS 'Number of the sequence in the harvest.';
COMMENT ON COLUMN harvested_text.tokens IS 'Token ids of the sequence, from its position 0 on.';
COMMENT ON COLUMN harvested_text.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

CREATE TABLE windows (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    band VARCHAR NOT NULL,
    rank INTEGER NOT NULL,
    document BIGINT,
    sequence BIGINT,
    start INTEGER,
    position INTEGER,
    length INTEGER,
    label VARCHAR,
    offsets USMALLINT[],
    activations FLOAT[],
    max_activation FLOAT,
    peak_token INTEGER,
    tokens INTEGER[],
    artifact_key VARCHAR
);

COMMENT ON TABLE windows IS 'One row per window of text around a peak of a feature''s activation, as it is stored; view contexts shows it whole. Key: dict_id, layer, feature, band, rank. Refers to: features (dict_id, layer, feature). Export folders: dict_id, layer.';
COMMENT ON COLUMN windows.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN windows.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN windows.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN windows.band IS 'top for the highest activations, q0 to q<n-1> for the bands between quantiles, highest last.';
COMMENT ON COLUMN windows.rank IS 'Place within the band, 0 first (highest activation).';
COMMENT ON COLUMN windows.document IS 'Document that the window comes from; a window never crosses documents.';
COMMENT ON COLUMN windows.sequence IS 'Sequence of the harvest that the window comes from, as in harvested_text.sequence.';
COMMENT ON COLUMN windows.start IS 'Position in the sequence of the window''s first token.';
COMMENT ON COLUMN windows.position IS 'Position in the sequence of the peak.';
COMMENT ON COLUMN windows.length IS 'Tokens of the window.';
COMMENT ON COLUMN windows.label IS 'Label of the text source, such as a language; NULL where it has none.';
COMMENT ON COLUMN windows.offsets IS 'Places in the window, 0 first and rising, at which the feature''s activation is above 0.';
COMMENT ON COLUMN windows.activations IS 'The activations at these places, in model units; everywhere else in the window it is 0.';
COMMENT ON COLUMN windows.max_activation IS 'Activation at the peak, in model units.';
COMMENT ON COLUMN windows.peak_token IS 'Token id at the peak.';
COMMENT ON COLUMN windows.tokens IS 'Token ids of the window where the harvest of an earlier cltdb brought it; NULL where they are a slice of harvested_text.tokens.';
COMMENT ON COLUMN windows.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

INSERT INTO windows
SELECT dict_id, layer, feature, band, rank, document, sequence, start, position, len(tokens), label,
       list_filter(range(len(activations)), lambda i: activations[i + 1] > 0)::USMALLINT[], list_filter(activations, lambda a: a > 0),
       max_activation, tokens[position - start + 1], tokens, artifact_key
FROM contexts;

DROP TABLE contexts;

UPDATE loaded_parts SET part = 'windows/' || part[10:] WHERE starts_with(part, 'contexts/');

ALTER TABLE features ADD COLUMN n_contexts INTEGER;
ALTER TABLE features ADD COLUMN n_documents INTEGER;
ALTER TABLE features ADD COLUMN std_activation FLOAT;
ALTER TABLE features ADD COLUMN quantiles FLOAT[];
ALTER TABLE features ADD COLUMN histogram STRUCT(low FLOAT, n BIGINT)[];

COMMENT ON COLUMN features.n_contexts IS 'Windows of the feature, each place once; NULL where an earlier cltdb harvested.';
COMMENT ON COLUMN features.n_documents IS 'Documents that these windows come from; NULL where an earlier cltdb harvested.';
COMMENT ON COLUMN features.std_activation IS 'Standard deviation of the activation over the tokens on which the feature is active, in model units; NULL where an earlier cltdb harvested.';
COMMENT ON COLUMN features.quantiles IS 'Quantiles 0.1, 0.25, 0.5, 0.75, 0.9 and 0.99 of the activation over the tokens on which the feature is active, in model units, interpolated in the bins of histogram; NULL for a dead feature and where an earlier cltdb harvested.';
COMMENT ON COLUMN features.histogram IS 'Histogram of the activation over the tokens on which the feature is active: the bins that are not empty, lowest first, each with its lower edge in model units (low) and its tokens (n). Four bins of equal width lie between one power of two and the next; what is smaller than the 32 bins up to the maximum is counted in the lowest of them. NULL where an earlier cltdb harvested.';

CREATE TABLE stale_groups (
    derived VARCHAR NOT NULL,
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    PRIMARY KEY (derived, dict_id, layer)
);

COMMENT ON TABLE stale_groups IS 'One row per group of rows of a table made from others that is to be made anew; empty but while artifacts are loaded, and after a loading process was killed.';
COMMENT ON COLUMN stale_groups.derived IS 'Name of the table.';
COMMENT ON COLUMN stale_groups.dict_id IS 'Dictionary of the group.';
COMMENT ON COLUMN stale_groups.layer IS 'Layer of the group.';

CREATE TABLE best_explanations (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    side VARCHAR NOT NULL,
    explainer VARCHAR NOT NULL,
    text VARCHAR,
    score DOUBLE,
    detection DOUBLE,
    fuzzing DOUBLE
);

COMMENT ON TABLE best_explanations IS 'One row per feature that is explained: its best explanation. Explanations of side input come before those of side output, then the highest score counts, then the explainer''s name. Baselines never count. Key: dict_id, layer, feature. Replaced together: dict_id, layer. Refers to: features (dict_id, layer, feature). Derived from: explanations, scores. Export folders: dict_id.';
COMMENT ON COLUMN best_explanations.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN best_explanations.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN best_explanations.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN best_explanations.side IS 'input: the text says what makes the feature fire; output: what the feature writes.';
COMMENT ON COLUMN best_explanations.explainer IS 'Who wrote it: rules, llm, llm_contrastive or single_token.';
COMMENT ON COLUMN best_explanations.text IS 'The explanation.';
COMMENT ON COLUMN best_explanations.score IS 'Its score: detection where that was measured, else fuzzing, else the mean of the others (0 to 1).';
COMMENT ON COLUMN best_explanations.detection IS 'Its balanced accuracy in detection (0 to 1).';
COMMENT ON COLUMN best_explanations.fuzzing IS 'Its balanced accuracy in fuzzing (0 to 1).';

CREATE TABLE edges_into (
    dict_id VARCHAR NOT NULL,
    target_layer INTEGER NOT NULL,
    target_feature INTEGER NOT NULL,
    source_layer INTEGER NOT NULL,
    source_feature INTEGER NOT NULL,
    virtual_weight FLOAT,
    era FLOAT,
    twera FLOAT,
    coactivation DOUBLE
);

COMMENT ON TABLE edges_into IS 'The rows of feature_edges once more, sorted by target: the edges into a feature lie beside each other. Key: dict_id, target_layer, target_feature, source_layer, source_feature. Replaced together: dict_id, target_layer. Derived from: feature_edges. Export folders: dict_id.';
COMMENT ON COLUMN edges_into.dict_id IS 'As feature_edges.dict_id.';
COMMENT ON COLUMN edges_into.target_layer IS 'As feature_edges.target_layer.';
COMMENT ON COLUMN edges_into.target_feature IS 'As feature_edges.target_feature.';
COMMENT ON COLUMN edges_into.source_layer IS 'As feature_edges.source_layer.';
COMMENT ON COLUMN edges_into.source_feature IS 'As feature_edges.source_feature.';
COMMENT ON COLUMN edges_into.virtual_weight IS 'As feature_edges.virtual_weight.';
COMMENT ON COLUMN edges_into.era IS 'As feature_edges.era.';
COMMENT ON COLUMN edges_into.twera IS 'As feature_edges.twera.';
COMMENT ON COLUMN edges_into.coactivation IS 'As feature_edges.coactivation.';

CREATE TABLE token_features (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    token INTEGER NOT NULL,
    role VARCHAR NOT NULL,
    feature INTEGER NOT NULL,
    weight FLOAT
);

COMMENT ON TABLE token_features IS 'One row per token and feature that peaks on it or promotes it: which features belong to a token. Key: dict_id, layer, token, role, feature. Replaced together: dict_id, layer. Derived from: windows, features. Export folders: dict_id.';
COMMENT ON COLUMN token_features.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN token_features.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN token_features.token IS 'Token id, as in vocabulary.token.';
COMMENT ON COLUMN token_features.role IS 'fires_on: windows of the feature peak on the token; promotes: the token is among features.top_logits.';
COMMENT ON COLUMN token_features.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN token_features.weight IS 'fires_on: share of the feature''s windows that peak on the token (0 to 1); promotes: what the feature adds to the token''s logit, as in features.top_logits.';

INSERT INTO stale_groups
SELECT DISTINCT 'best_explanations', dict_id, layer FROM explanations
UNION SELECT DISTINCT 'edges_into', dict_id, target_layer FROM feature_edges
UNION SELECT DISTINCT 'token_features', dict_id, layer FROM features;
