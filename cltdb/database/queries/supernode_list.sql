-- Groups of features that were named, by stage attribute or in the browser.
-- Grain: one row per supernode_id.
-- Order: graph_id, supernode_id.
-- Reads: graphs, supernodes.
-- Parameters:
--   $graph_id: text = NULL  only this graph

SELECT s.graph_id, s.supernode_id, s.name, len(s.node_ids) AS n_nodes, s.node_ids, g.prompt, s.created_at
FROM supernodes AS s
LEFT JOIN graphs AS g USING (graph_id)
WHERE s.graph_id = coalesce($graph_id::VARCHAR, s.graph_id)
ORDER BY s.graph_id, s.supernode_id
