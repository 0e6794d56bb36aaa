-- The strongest paths of a graph, and what each of their steps goes through.

CREATE TABLE paths (
    graph_id VARCHAR NOT NULL,
    path_id INTEGER NOT NULL,
    rank INTEGER,
    target_id INTEGER,
    weight DOUBLE,
    share DOUBLE,
    artifact_key VARCHAR
);

CREATE TABLE path_steps (
    graph_id VARCHAR NOT NULL,
    path_id INTEGER NOT NULL,
    step INTEGER NOT NULL,
    source_id INTEGER,
    target_id INTEGER,
    via VARCHAR NOT NULL,
    head VARCHAR,
    source_position INTEGER,
    input_factor DOUBLE,
    weight_factor DOUBLE,
    artifact_key VARCHAR
);

COMMENT ON TABLE paths IS 'One row per path from an input of a graph (an embedding, an error, or a feature whose incoming edges were not computed) through features to a target; per target the strongest (attribute.paths). Key: graph_id, path_id. Refers to: graphs (graph_id), nodes (graph_id, target_id = node_id).';
COMMENT ON COLUMN paths.graph_id IS 'Graph, as in graphs.graph_id.';
COMMENT ON COLUMN paths.path_id IS 'Number of the path in its graph, 0 first.';
COMMENT ON COLUMN paths.rank IS 'Place of the path among those to its target by absolute weight, from 1 (at least 1).';
COMMENT ON COLUMN paths.target_id IS 'Node that it ends at, as in nodes.node_id.';
COMMENT ON COLUMN paths.weight IS 'Its part in the target''s pre-activation: the weight of its first edge, times that of each further edge per unit of activation of the feature it leaves; negative where it inhibits. All paths of a graph to a target sum to its pre-activation less the biases, its own and those that the edges carry on from features below.';
COMMENT ON COLUMN paths.share IS 'Absolute weight over the sum of absolute weights of all paths to the target that the graph has, of any length and sign (0 to 1). What the shares of the stored paths to a target lack to 1 was left out.';
COMMENT ON COLUMN paths.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

COMMENT ON TABLE path_steps IS 'One row per step of a path and route that it takes: the products input_factor * weight_factor of a step sum to the weight of its edge. Key: graph_id, path_id, step, via, source_position. Replaced together: graph_id. Refers to: paths (graph_id, path_id), nodes (graph_id, source_id = node_id), nodes (graph_id, target_id = node_id).';
COMMENT ON COLUMN path_steps.graph_id IS 'Graph, as in graphs.graph_id.';
COMMENT ON COLUMN path_steps.path_id IS 'Path, as in paths.path_id.';
COMMENT ON COLUMN path_steps.step IS 'Place of the step in its path, 0 first: the one that leaves the input.';
COMMENT ON COLUMN path_steps.source_id IS 'Node that the step leaves, as in nodes.node_id.';
COMMENT ON COLUMN path_steps.target_id IS 'Node that the step enters, as in nodes.node_id.';
COMMENT ON COLUMN path_steps.via IS 'Route of the step: residual; attention heads in the order in which it goes through them, such as L3H2 or L1H0 L3H2; L1skip where it goes through the skip path of a dictionary; or others: the sum of all routes that have no row, those of more than two heads among them.';
COMMENT ON COLUMN path_steps.head IS 'Last head of the route, such as L3H2; NULL where it goes through none.';
COMMENT ON COLUMN path_steps.source_position IS 'Token position that the last head reads, 0 first; NULL where there is none.';
COMMENT ON COLUMN path_steps.input_factor IS 'What depends on the prompt: the source''s activation (1 for an embedding, for an error its norm), the patterns of the heads, and one over each norm''s denominator. Of route others the activation alone.';
COMMENT ON COLUMN path_steps.weight_factor IS 'What weights alone say: decoder (or embedding), OV matrices with the gains of norms, and encoder (or unembedding) multiplied. An error has its direction in the prompt instead of a decoder. Of route others, patterns and denominators are in this factor too.';
COMMENT ON COLUMN path_steps.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';
