-- The edges of a graph.
-- Grain: one row per source_id, target_id.
-- Order: influence, highest first, then source_id, target_id.
-- Parameters:
--   $graph_id         the graph
--   $kept = false     true: only edges that survive pruning
--   $limit = 1000000  at most this many rows

SELECT source_id, target_id, weight, influence, kept, measured
FROM edges
WHERE graph_id = $graph_id::VARCHAR AND (kept OR NOT $kept::BOOLEAN)
ORDER BY influence DESC NULLS LAST, source_id, target_id
LIMIT $limit::BIGINT
