-- What drives features by weights alone: tokens through heads, learned positions; and how well weights predict what happens.

CREATE TABLE input_edges (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    input INTEGER NOT NULL,
    via VARCHAR,
    virtual_weight FLOAT NOT NULL,
    artifact_key VARCHAR
);

COMMENT ON TABLE input_edges IS 'One row per edge from an input to a feature, by weights alone (harvest.input_edges): from a token through one attention head, or from a learned position along the residual stream or through one head. Of every feature those of largest |virtual_weight| of each kind. Tokens along the residual stream are features.top_embeddings. Key: dict_id, layer, feature, kind, input, via. Refers to: features (dict_id, layer, feature). Export folders: dict_id.';
COMMENT ON COLUMN input_edges.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN input_edges.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN input_edges.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN input_edges.kind IS 'One of token or position.';
COMMENT ON COLUMN input_edges.input IS 'The token''s id, or the position, 0 first.';
COMMENT ON COLUMN input_edges.via IS 'Attention head that the edge goes through, such as L3H2; NULL: the residual stream alone.';
COMMENT ON COLUMN input_edges.virtual_weight IS 'What the embedding of the token or position adds to the feature''s pre-activation, before norms divide by their denominators: <the embedding as it enters the residual stream, direction that the feature''s W_enc reads>, through a head by its OV circuit, with the pattern 1.';
COMMENT ON COLUMN input_edges.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

CREATE TABLE pullback_overlaps (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    route VARCHAR NOT NULL,
    k INTEGER NOT NULL,
    overlap DOUBLE NOT NULL,
    control DOUBLE NOT NULL,
    n_tokens BIGINT NOT NULL,
    artifact_key VARCHAR
);

COMMENT ON TABLE pullback_overlaps IS 'One row per feature, route and k: how well weights alone say which earlier features drive a feature where it fires (harvest.pullback_overlap). No row where fewer than k sources contribute. Key: dict_id, layer, feature, route, k. Refers to: features (dict_id, layer, feature). Export folders: dict_id.';
COMMENT ON COLUMN pullback_overlaps.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN pullback_overlaps.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN pullback_overlaps.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN pullback_overlaps.route IS 'One of residual or heads: sources along the residual stream, or pairs of a source and one attention head.';
COMMENT ON COLUMN pullback_overlaps.k IS 'How many sources are compared (at least 1).';
COMMENT ON COLUMN pullback_overlaps.overlap IS 'Share of the k sources of largest |virtual weight| that are among the k of largest |mean contribution| over the tokens where the feature fires (0 to 1). A contribution is the virtual weight times the source''s activation, the norms'' scales and, through a head, its pattern.';
COMMENT ON COLUMN pullback_overlaps.control IS 'The same share after each of the former was replaced by another feature of its layer with a similar density (0 to 1).';
COMMENT ON COLUMN pullback_overlaps.n_tokens IS 'Tokens of the sample where the feature fires (at least 1).';
COMMENT ON COLUMN pullback_overlaps.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';
