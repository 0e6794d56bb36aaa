-- The graphs of the same dictionary that share most features with one graph.
-- Grain: one row per graph_id.
-- Order: jaccard, highest first, then graph_id.
-- Reads: graphs, nodes.
-- Parameters:
--   $graph_id: text        the graph
--   $kept: boolean = true  true: only nodes that survive pruning
--   $limit: integer = 20   at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653
-- jaccard: features of both divided by features of either (0 to 1), wherever in the prompt they stand.

WITH held AS (
    SELECT DISTINCT n.graph_id, n.layer, n.feature
    FROM nodes AS n
    JOIN graphs AS g USING (graph_id)
    WHERE n.kind = 'feature' AND (n.kept OR NOT $kept::BOOLEAN)
      AND g.dict_id = (SELECT dict_id FROM graphs WHERE graph_id = $graph_id::VARCHAR)
), size AS (
    SELECT graph_id, count(*) AS n_features FROM held GROUP BY graph_id
), common AS (
    SELECT o.graph_id, count(*) AS n_shared
    FROM held AS h
    JOIN held AS o USING (layer, feature)
    WHERE h.graph_id = $graph_id::VARCHAR AND o.graph_id <> $graph_id::VARCHAR
    GROUP BY o.graph_id
)
SELECT c.graph_id, g.prompt, c.n_shared, s.n_features, c.n_shared / (s.n_features + m.n_features - c.n_shared) AS jaccard
FROM common AS c
JOIN size AS s USING (graph_id)
JOIN size AS m ON m.graph_id = $graph_id::VARCHAR
JOIN graphs AS g ON g.graph_id = c.graph_id
ORDER BY jaccard DESC, c.graph_id
LIMIT $limit::BIGINT
