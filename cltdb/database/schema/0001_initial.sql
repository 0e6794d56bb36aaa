-- The first schema. Meanings and units of every table and column: comments.sql. Views: views.sql.
-- Rows carry the key of the artifact they came from (artifact_key, the last column; not in the Parquet files).
-- Loaded tables have no indexes: rows arrive sorted by their key, so DuckDB's zone maps find them, and 20 million contexts stay small.

CREATE TABLE schema_migrations (
    name VARCHAR PRIMARY KEY,
    applied_at TIMESTAMP NOT NULL
);

CREATE TABLE loaded_artifacts (
    artifact_key VARCHAR PRIMARY KEY,
    made_at VARCHAR NOT NULL
);

CREATE TABLE loaded_parts (
    artifact_key VARCHAR NOT NULL,
    part VARCHAR NOT NULL,
    rows BIGINT NOT NULL,
    loaded_at TIMESTAMP NOT NULL,
    complete BOOLEAN NOT NULL,
    superseded BOOLEAN NOT NULL,
    PRIMARY KEY (artifact_key, part)
);

CREATE TABLE experiments (
    experiment VARCHAR NOT NULL,
    spec_hash VARCHAR NOT NULL,
    spec_yaml VARCHAR NOT NULL,
    created_at TIMESTAMP,
    PRIMARY KEY (experiment, spec_hash)
);

CREATE TABLE stage_runs (
    run_id VARCHAR PRIMARY KEY,
    experiment VARCHAR NOT NULL,
    spec_hash VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    started_at TIMESTAMP,
    seconds DOUBLE,
    host VARCHAR,
    device VARCHAR,
    versions VARCHAR,
    error VARCHAR
);

CREATE TABLE models (
    model_id VARCHAR NOT NULL,
    revision VARCHAR NOT NULL,
    architecture VARCHAR,
    n_layers INTEGER,
    d_model INTEGER,
    vocab_size INTEGER,
    max_context INTEGER,
    artifact_key VARCHAR
);

CREATE TABLE vocabulary (
    model_id VARCHAR NOT NULL,
    token INTEGER NOT NULL,
    string VARCHAR,
    artifact_key VARCHAR
);

CREATE TABLE dictionaries (
    dict_id VARCHAR NOT NULL,
    experiment VARCHAR,
    model_id VARCHAR,
    revision VARCHAR,
    mlp_input VARCHAR,
    kind VARCHAR,
    activation VARCHAR,
    n_layers INTEGER,
    n_features INTEGER,
    d_model INTEGER,
    path VARCHAR,
    sha256 VARCHAR,
    artifact_key VARCHAR
);

CREATE TABLE metrics (
    dict_id VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    step BIGINT,
    layer INTEGER,
    name VARCHAR NOT NULL,
    value DOUBLE,
    artifact_key VARCHAR
);

CREATE TABLE features (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    density DOUBLE,
    max_activation FLOAT,
    mean_activation FLOAT,
    threshold FLOAT,
    encoder_norm FLOAT,
    decoder_norms FLOAT[],
    dead BOOLEAN,
    top_logits STRUCT(token INTEGER, value FLOAT)[],
    bottom_logits STRUCT(token INTEGER, value FLOAT)[],
    artifact_key VARCHAR
);

CREATE TABLE contexts (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    band VARCHAR NOT NULL,
    rank INTEGER NOT NULL,
    document BIGINT,
    sequence BIGINT,
    start INTEGER,
    position INTEGER,
    label VARCHAR,
    tokens INTEGER[],
    activations FLOAT[],
    max_activation FLOAT,
    artifact_key VARCHAR
);

CREATE TABLE explanations (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    side VARCHAR NOT NULL,
    explainer VARCHAR NOT NULL,
    text VARCHAR,
    model VARCHAR,
    prompt_tokens BIGINT,
    completion_tokens BIGINT,
    cost_usd DOUBLE,
    status VARCHAR,
    error VARCHAR,
    created_at TIMESTAMP,
    artifact_key VARCHAR
);

CREATE TABLE scores (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    side VARCHAR NOT NULL,
    explainer VARCHAR NOT NULL,
    scorer VARCHAR NOT NULL,
    score DOUBLE,
    n INTEGER,
    n_failed INTEGER,
    ci_low DOUBLE,
    ci_high DOUBLE,
    detail VARCHAR,
    artifact_key VARCHAR
);

CREATE TABLE graphs (
    graph_id VARCHAR NOT NULL,
    dict_id VARCHAR,
    model_id VARCHAR,
    prompt_id VARCHAR,
    prompt VARCHAR,
    tokens INTEGER[],
    target VARCHAR,
    foil VARCHAR,
    n_nodes INTEGER,
    n_edges BIGINT,
    n_features_active BIGINT,
    node_threshold DOUBLE,
    edge_threshold DOUBLE,
    replacement_score DOUBLE,
    completeness_score DOUBLE,
    pruned_replacement_score DOUBLE,
    pruned_completeness_score DOUBLE,
    max_abs_error DOUBLE,
    seconds DOUBLE,
    artifact_key VARCHAR
);

CREATE TABLE nodes (
    graph_id VARCHAR NOT NULL,
    node_id INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    layer INTEGER,
    position INTEGER,
    feature INTEGER,
    activation FLOAT,
    pre_activation FLOAT,
    bias FLOAT,
    influence DOUBLE,
    token INTEGER,
    probability DOUBLE,
    expanded BOOLEAN,
    dropped_mass FLOAT,
    kept BOOLEAN,
    artifact_key VARCHAR
);

CREATE TABLE edges (
    graph_id VARCHAR NOT NULL,
    source_id INTEGER NOT NULL,
    target_id INTEGER NOT NULL,
    weight DOUBLE,
    influence DOUBLE,
    kept BOOLEAN,
    measured DOUBLE,
    artifact_key VARCHAR
);

CREATE TABLE interventions (
    intervention_id VARCHAR NOT NULL,
    graph_id VARCHAR,
    dict_id VARCHAR,
    model_id VARCHAR,
    prompt VARCHAR,
    tokens INTEGER[],
    mode VARCHAR,
    until_layer INTEGER,
    settings STRUCT(layer INTEGER, feature INTEGER, position INTEGER, operation VARCHAR, value DOUBLE)[],
    created_at TIMESTAMP,
    artifact_key VARCHAR
);

CREATE TABLE intervention_effects (
    intervention_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    layer INTEGER,
    position INTEGER,
    feature INTEGER,
    token INTEGER,
    before DOUBLE,
    after DOUBLE,
    predicted DOUBLE,
    artifact_key VARCHAR
);

CREATE TABLE feature_edges (
    dict_id VARCHAR NOT NULL,
    source_layer INTEGER NOT NULL,
    source_feature INTEGER NOT NULL,
    target_layer INTEGER NOT NULL,
    target_feature INTEGER NOT NULL,
    virtual_weight FLOAT,
    era FLOAT,
    twera FLOAT,
    coactivation DOUBLE,
    artifact_key VARCHAR
);

CREATE TABLE supernodes (
    supernode_id VARCHAR NOT NULL,
    graph_id VARCHAR NOT NULL,
    name VARCHAR,
    node_ids INTEGER[],
    created_at TIMESTAMP,
    artifact_key VARCHAR
);

CREATE TABLE annotations (
    annotation_id VARCHAR NOT NULL,
    dict_id VARCHAR,
    layer INTEGER,
    feature INTEGER,
    graph_id VARCHAR,
    node_id INTEGER,
    text VARCHAR,
    author VARCHAR,
    created_at TIMESTAMP,
    artifact_key VARCHAR
);
