-- Groups of nodes that were named: by users in the browser, by stage attribute, in an imported file.
-- Grain: one row per supernode_id.
-- Order: graph_id, groups of users first, then supernode_id.
-- Reads: graphs, supernodes.
-- Parameters:
--   $graph_id: text = NULL  only this graph
-- source: user, attribute or import.

SELECT s.graph_id, s.supernode_id, s.name, len(s.node_ids) AS n_nodes, s.node_ids, g.prompt, s.created_at,
       CASE WHEN s.artifact_key IS NULL THEN 'user' WHEN g.n_layers IS NULL THEN 'attribute' ELSE 'import' END AS source,
       s.note, s.author
FROM supernodes AS s
LEFT JOIN graphs AS g USING (graph_id)
WHERE s.graph_id = coalesce($graph_id::VARCHAR, s.graph_id)
ORDER BY s.graph_id, s.artifact_key IS NOT NULL, s.supernode_id
