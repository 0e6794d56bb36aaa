-- The edges of a graph.
-- Grain: one row per source_id, target_id.
-- Order: influence, highest first, then source_id, target_id.
-- Reads: edges.
-- Parameters:
--   $graph_id: text            the graph
--   $kept: boolean = false     true: only edges that survive pruning
--   $limit: integer = 1000000  at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653

SELECT source_id, target_id, weight, influence, kept, measured
FROM edges
WHERE graph_id = $graph_id::VARCHAR AND (kept OR NOT $kept::BOOLEAN)
ORDER BY influence DESC NULLS LAST, source_id, target_id
LIMIT $limit::BIGINT
