-- What users make in the browser. Their rows come from the logs in <workspace>/annotations, by way of table annotation_events.

CREATE TABLE annotation_events (
    event_id VARCHAR NOT NULL,
    made_at TIMESTAMP NOT NULL,
    author VARCHAR,
    graph_id VARCHAR,
    dict_id VARCHAR,
    op VARCHAR NOT NULL,
    content VARCHAR
);

COMMENT ON TABLE annotation_events IS 'One row per change that a user made in the browser, as the logs in <workspace>/annotations have it. The rows of annotations, and those of supernodes without artifact_key, are made from these. Key: event_id.';
COMMENT ON COLUMN annotation_events.event_id IS 'Identifier of the change.';
COMMENT ON COLUMN annotation_events.made_at IS 'When it was made (UTC). Changes count in this order: of two of the same thing the later holds.';
COMMENT ON COLUMN annotation_events.author IS 'Who made it: the user that the server runs as.';
COMMENT ON COLUMN annotation_events.graph_id IS 'Graph that it is about; NULL where it is about features.';
COMMENT ON COLUMN annotation_events.dict_id IS 'Dictionary of the features that it is about; NULL where it is about a graph.';
COMMENT ON COLUMN annotation_events.op IS 'What was done, such as pin, group-create, label, star; undo takes back another change.';
COMMENT ON COLUMN annotation_events.content IS 'The fields of the change, as JSON.';

DROP TABLE annotations;

CREATE TABLE annotations (
    annotation_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    dict_id VARCHAR,
    layer INTEGER,
    feature INTEGER,
    graph_id VARCHAR,
    node_id INTEGER,
    list VARCHAR,
    text VARCHAR,
    author VARCHAR,
    created_at TIMESTAMP
);

COMMENT ON TABLE annotations IS 'One row per label, note, pinned or hidden node and starred feature that users made in the browser, as it is now; groups of nodes are in supernodes. Key: annotation_id. Refers to: features (dict_id, layer, feature), graphs (graph_id), nodes (graph_id, node_id).';
COMMENT ON COLUMN annotations.annotation_id IS 'Identifier of the row: its kind and what it is about.';
COMMENT ON COLUMN annotations.kind IS 'One of label, note, pin, hide or star. A label is a user''s own name of a feature or node; a star says that a feature is in a list.';
COMMENT ON COLUMN annotations.dict_id IS 'Dictionary of the feature that it is about; NULL where it is about none.';
COMMENT ON COLUMN annotations.layer IS 'Layer of that feature, 0 first.';
COMMENT ON COLUMN annotations.feature IS 'Index of that feature in its layer, 0 first.';
COMMENT ON COLUMN annotations.graph_id IS 'Graph that it is about; NULL where it is about a feature.';
COMMENT ON COLUMN annotations.node_id IS 'Node of that graph that it is about; NULL for a note on the graph.';
COMMENT ON COLUMN annotations.list IS 'Name of the list, of a star.';
COMMENT ON COLUMN annotations.text IS 'The label or note; NULL for other kinds.';
COMMENT ON COLUMN annotations.author IS 'Who made it.';
COMMENT ON COLUMN annotations.created_at IS 'When it was made (UTC).';

ALTER TABLE supernodes ADD COLUMN note VARCHAR;
ALTER TABLE supernodes ADD COLUMN author VARCHAR;

COMMENT ON TABLE supernodes IS 'One row per group of nodes of a graph: made by a user in the browser, proposed by stage attribute (features with the same role, attribute.supernode_similarity), or a group of an imported graph. Queries take the groups that users made where a graph has any. Key: supernode_id. Refers to: graphs (graph_id).';
COMMENT ON COLUMN supernodes.supernode_id IS 'Identifier of the group; for groups of stage attribute the graph_id with -s0, -s1, …, most influential first.';
COMMENT ON COLUMN supernodes.note IS 'What a user wrote about the group; NULL where nobody did.';
COMMENT ON COLUMN supernodes.author IS 'Who made the group in the browser; NULL for groups of artifacts.';
COMMENT ON COLUMN supernodes.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>. NULL for groups that users made.';
