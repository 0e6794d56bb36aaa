-- The nodes of a graph, in few words.
-- Grain: one row per node_id.
-- Order: node_id.
-- Reads: graphs, nodes.
-- Parameters:
--   $graph_id: text  the graph
-- Example: -p graph_id=capital-of-france-10de5653

SELECT n.node_id, n.kind, n.layer, n.feature, n.position, g.dict_id
FROM nodes AS n
JOIN graphs AS g USING (graph_id)
WHERE n.graph_id = $graph_id::VARCHAR
ORDER BY n.node_id
