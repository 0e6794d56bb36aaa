-- Features that appear in at least k graphs.
-- Grain: one row per dict_id, layer, feature.
-- Order: number of graphs, highest first, then mean influence, then dict_id, layer, feature.
-- Reads: best_explanations, graphs, nodes.
-- Parameters:
--   $k: integer = 2        at least this many graphs
--   $kept: boolean = true  true: only nodes that survive pruning
--   $dict_id: text = NULL  only this dictionary

WITH seen AS (
    SELECT g.dict_id, n.layer, n.feature, count(DISTINCT n.graph_id) AS n_graphs, avg(n.influence) AS mean_influence,
           list(DISTINCT n.graph_id ORDER BY n.graph_id) AS graph_ids
    FROM nodes AS n
    JOIN graphs AS g USING (graph_id)
    WHERE n.kind = 'feature' AND (n.kept OR NOT $kept::BOOLEAN) AND g.dict_id = coalesce($dict_id::VARCHAR, g.dict_id)
    GROUP BY g.dict_id, n.layer, n.feature
    HAVING n_graphs >= $k::INTEGER
)
SELECT s.dict_id, s.layer, s.feature, s.n_graphs, s.mean_influence, s.graph_ids, b.text, b.score
FROM seen AS s
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
ORDER BY s.n_graphs DESC, s.mean_influence DESC NULLS LAST, s.dict_id, s.layer, s.feature
