-- What is known of a graph as a whole: pruning at several thresholds, lengths of its paths, agreement with ablations.

ALTER TABLE graphs ADD COLUMN error_share DOUBLE;
ALTER TABLE graphs ADD COLUMN mean_path_length DOUBLE;
ALTER TABLE graphs ADD COLUMN n_ablations INTEGER;
ALTER TABLE graphs ADD COLUMN ablation_spearman DOUBLE;

CREATE TABLE prune_curves (
    graph_id VARCHAR NOT NULL,
    node_threshold DOUBLE NOT NULL,
    edge_threshold DOUBLE NOT NULL,
    n_nodes INTEGER,
    n_edges BIGINT,
    replacement_score DOUBLE,
    completeness_score DOUBLE,
    artifact_key VARCHAR
);

CREATE TABLE path_lengths (
    graph_id VARCHAR NOT NULL,
    length INTEGER NOT NULL,
    share DOUBLE,
    artifact_key VARCHAR
);
