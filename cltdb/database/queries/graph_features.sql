-- The most influential features of a graph, those at several positions as one.
-- Grain: one row per layer, feature.
-- Order: influence, highest first, then layer, feature.
-- Reads: best_explanations, graphs, nodes.
-- Parameters:
--   $graph_id: text         the graph
--   $kept: boolean = false  true: only nodes that survive pruning
--   $limit: integer = 50    at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653

WITH found AS (
    SELECT layer, feature, sum(influence) AS influence, count(*) AS n_nodes, list(position ORDER BY position) AS positions,
           max(activation) AS max_activation, max(label) AS label
    FROM nodes
    WHERE graph_id = $graph_id::VARCHAR AND kind = 'feature' AND (kept OR NOT $kept::BOOLEAN)
    GROUP BY layer, feature
    ORDER BY influence DESC NULLS LAST, layer, feature
    LIMIT $limit::BIGINT
)
SELECT f.layer, f.feature, f.influence, f.n_nodes, f.positions, f.max_activation, coalesce(b.text, f.label) AS text, b.score
FROM found AS f
LEFT JOIN best_explanations AS b
    ON b.dict_id = (SELECT dict_id FROM graphs WHERE graph_id = $graph_id::VARCHAR) AND b.layer = f.layer AND b.feature = f.feature
ORDER BY f.influence DESC NULLS LAST, f.layer, f.feature
