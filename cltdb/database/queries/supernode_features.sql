-- The features of a supernode.
-- Grain: one row per node.
-- Order: node_id.
-- Reads: nodes, supernodes.
-- Parameters:
--   $graph_id: text  the graph
--   $name: text      name of the supernode; of several with that name all, but where users made one those of users alone
-- Example: -p graph_id=capital-of-france-10de5653 -p name='Paris (is@5)'

SELECT DISTINCT n.node_id, n.layer, n.feature, n.position, n.activation, n.influence
FROM (
    FROM supernodes WHERE graph_id = $graph_id::VARCHAR AND name = $name::VARCHAR
    QUALIFY (artifact_key IS NULL) = bool_or(artifact_key IS NULL) OVER ()
) AS s
JOIN nodes AS n ON n.graph_id = s.graph_id AND list_contains(s.node_ids, n.node_id) AND n.kind = 'feature'
ORDER BY n.node_id
