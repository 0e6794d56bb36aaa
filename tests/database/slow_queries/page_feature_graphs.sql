-- The graphs in which a feature is a node.
-- Grain: one row per graph_id, node_id.
-- Order: influence, highest first, then graph_id, node_id.
-- Reads: graphs, nodes.
-- Parameters:
--   $dict_id: text = NULL     only features of this dictionary
--   $layer: integer = NULL    only this layer
--   $feature: integer = NULL  only this feature of a layer
--   $limit: integer = 20      at most this many rows

SELECT n.graph_id, n.node_id, g.prompt, n.layer, n.feature, n.position, n.activation, n.influence, n.kept
FROM nodes AS n
JOIN graphs AS g USING (graph_id)
WHERE n.kind = 'feature'
  AND g.dict_id = coalesce($dict_id::VARCHAR, g.dict_id)
  AND n.layer = coalesce($layer::INTEGER, n.layer)
  AND n.feature = coalesce($feature::INTEGER, n.feature)
ORDER BY n.influence DESC NULLS LAST, n.graph_id, n.node_id
LIMIT $limit::BIGINT
