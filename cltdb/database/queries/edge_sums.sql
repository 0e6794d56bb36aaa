-- What enters the nodes of a graph: number and sum of the absolute weights of their incoming edges.
-- Grain: one row per target_id that has an incoming edge.
-- Order: target_id.
-- Reads: edges.
-- Parameters:
--   $graph_id: text              the graph
--   $node_ids: integers = NULL   only edges between these nodes; without them all edges of the graph
-- Example: -p graph_id=capital-of-france-10de5653
-- Edges without a row count in column dropped_mass of table nodes, not here.

SELECT target_id, count(*) AS n_edges, sum(abs(weight)) AS mass
FROM edges
WHERE graph_id = $graph_id::VARCHAR
  AND ($node_ids::INTEGER[] IS NULL
       OR (source_id IN (SELECT unnest($node_ids::INTEGER[])) AND target_id IN (SELECT unnest($node_ids::INTEGER[]))))
GROUP BY target_id
ORDER BY target_id
