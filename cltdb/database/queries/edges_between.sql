-- The edges of a graph between some of its nodes.
-- Grain: one row per source_id, target_id.
-- Order: target_id, source_id.
-- Reads: edges.
-- Parameters:
--   $graph_id: text              the graph
--   $node_ids: integers = NULL   the nodes; without them all edges of the graph
-- Example: -p graph_id=capital-of-france-10de5653 -p node_ids=[166,19,21,24]

SELECT source_id, target_id, weight, influence
FROM edges
WHERE graph_id = $graph_id::VARCHAR
  AND ($node_ids::INTEGER[] IS NULL
       OR (source_id IN (SELECT unnest($node_ids::INTEGER[])) AND target_id IN (SELECT unnest($node_ids::INTEGER[]))))
ORDER BY target_id, source_id
