-- How a graph shrinks and what its scores lose when it is pruned at other thresholds.
-- Grain: one row per node_threshold, edge_threshold.
-- Order: node_threshold, edge_threshold.
-- Reads: prune_curves.
-- Parameters:
--   $graph_id: text  the graph
-- Example: -p graph_id=capital-of-france-10de5653

SELECT node_threshold, edge_threshold, n_nodes, n_edges, replacement_score, completeness_score
FROM prune_curves
WHERE graph_id = $graph_id::VARCHAR
ORDER BY node_threshold, edge_threshold
