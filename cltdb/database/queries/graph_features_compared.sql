-- Two graphs of one dictionary beside each other: the features that survive pruning in either, with their influence in both.
-- Grain: one row per layer, feature.
-- Order: the larger influence of the two, largest first, then layer, feature.
-- Reads: best_explanations, graphs, nodes.
-- Parameters:
--   $graph_id: text         the first graph
--   $other: text            the second graph
--   $limit: integer = 1000  at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653 -p other=capital-of-france-10de5653
-- influence: summed over the token positions where the feature is active, in the unpruned graph; NULL where it is active at none. kept: it survives
-- pruning at one position at least. node_id: its node of largest influence. positions: where it is active, in order.

WITH held AS (
    SELECT graph_id, layer, feature, sum(influence) AS influence, arg_max(node_id, coalesce(influence, 0)) AS node_id,
           list(position ORDER BY position) AS positions, bool_or(kept) AS kept
    FROM nodes
    WHERE kind = 'feature' AND graph_id IN ($graph_id::VARCHAR, $other::VARCHAR)
    GROUP BY graph_id, layer, feature
), paired AS (
    SELECT layer, feature, a.influence, b.influence AS other_influence, a.node_id, b.node_id AS other_node_id, a.positions,
           b.positions AS other_positions, coalesce(a.kept, false) AS kept, coalesce(b.kept, false) AS other_kept
    FROM (FROM held WHERE graph_id = $graph_id::VARCHAR) AS a
    FULL JOIN (FROM held WHERE graph_id = $other::VARCHAR) AS b USING (layer, feature)
)
SELECT p.layer, p.feature, x.text, p.influence, p.other_influence, p.kept, p.other_kept, p.node_id, p.other_node_id, p.positions,
       p.other_positions
FROM paired AS p
LEFT JOIN best_explanations AS x ON x.layer = p.layer AND x.feature = p.feature
    AND x.dict_id = (SELECT dict_id FROM graphs WHERE graph_id = $graph_id::VARCHAR)
WHERE p.kept OR p.other_kept
ORDER BY greatest(coalesce(p.influence, 0), coalesce(p.other_influence, 0)) DESC, p.layer, p.feature
LIMIT $limit::BIGINT
