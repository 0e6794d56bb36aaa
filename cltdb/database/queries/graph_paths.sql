-- All paths from an embedding to a logit of a graph, along edges of at least a given absolute weight.
-- Grain: one row per path.
-- Order: strength (product of the absolute weights, each divided by the sum of absolute weights entering its target, dropped ones too),
-- highest first.
-- Reads: edges, nodes.
-- Parameters:
--   $graph_id: text               the graph
--   $position: integer = NULL     only paths from the embedding at this token position; all where NULL
--   $logit: integer = 0           place of the logit, 0 the likeliest
--   $min_weight: number = 0       only edges of at least this absolute weight
--   $min_strength: number = 1e-4  only paths at least this strong (0 to 1; 0 lists all, which are many in a large graph)
--   $through: kept | all = kept   kept: edges that survive pruning; all: every edge
--   $max_edges: integer = 12      longest path
--   $limit: integer = 1000        at most this many paths
-- Example: -p graph_id=capital-of-france-10de5653

WITH RECURSIVE e AS (
    SELECT e.source_id, e.target_id, e.weight, e.kept,
           abs(e.weight) / nullif(sum(abs(e.weight)) OVER (PARTITION BY e.target_id) + coalesce(t.dropped_mass, 0), 0) AS share
    FROM edges AS e
    JOIN nodes AS t ON t.graph_id = e.graph_id AND t.node_id = e.target_id
    WHERE e.graph_id = $graph_id::VARCHAR
), usable AS (
    SELECT source_id, target_id, weight, share FROM e
    WHERE (kept OR $through::VARCHAR = 'all') AND abs(weight) >= $min_weight::DOUBLE
), goal AS (
    SELECT node_id FROM nodes WHERE graph_id = $graph_id::VARCHAR AND kind = 'logit'
    ORDER BY node_id LIMIT 1 OFFSET $logit::BIGINT
), walk AS (
    SELECT node_id AS first_id, [node_id] AS node_ids, []::DOUBLE[] AS weights, 1.0::DOUBLE AS strength FROM goal
    UNION ALL
    SELECT u.source_id, list_prepend(u.source_id, w.node_ids), list_prepend(u.weight, w.weights), w.strength * u.share
    FROM walk AS w JOIN usable AS u ON u.target_id = w.first_id
    WHERE len(w.weights) < $max_edges::INTEGER AND w.strength * u.share >= $min_strength::DOUBLE
)
SELECT w.strength, len(w.weights) AS n_edges, n.position, w.node_ids, w.weights
FROM walk AS w
JOIN nodes AS n ON n.graph_id = $graph_id::VARCHAR AND n.node_id = w.first_id AND n.kind = 'embedding'
WHERE n.position = coalesce($position::INTEGER, n.position)
ORDER BY w.strength DESC, w.node_ids
LIMIT $limit::BIGINT
