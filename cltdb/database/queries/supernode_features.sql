-- The features of a supernode.
-- Grain: one row per node.
-- Order: node_id.
-- Reads: nodes, supernodes.
-- Parameters:
--   $graph_id: text  the graph
--   $name: text      name of the supernode; of several with that name, all
-- Example: -p graph_id=capital-of-france-10de5653 -p name='Paris (France@4)'

SELECT DISTINCT n.node_id, n.layer, n.feature, n.position, n.activation, n.influence
FROM supernodes AS s
JOIN nodes AS n ON n.graph_id = s.graph_id AND list_contains(s.node_ids, n.node_id) AND n.kind = 'feature'
WHERE s.graph_id = $graph_id::VARCHAR AND s.name = $name::VARCHAR
ORDER BY n.node_id
