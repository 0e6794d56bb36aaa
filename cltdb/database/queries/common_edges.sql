-- Edges between two features that are found in many graphs: circuits that come back from prompt to prompt.
-- Grain: one row per dict_id, source_layer, source_feature, target_layer, target_feature.
-- Order: number of graphs, highest first, then number of edges, then dict_id, source and target.
-- Reads: best_explanations, edges, graphs, nodes.
-- Parameters:
--   $min_graphs: integer = 2  at least this many graphs
--   $kept: boolean = true     true: only edges that survive pruning
--   $dict_id: text = NULL     only this dictionary
--   $limit: integer = 200     at most this many rows
-- n_edges: the two features may be connected at several pairs of positions of one graph. positive_frac: share of these edges
-- whose weight is above 0.

WITH ends AS (
    SELECT n.graph_id, n.node_id, g.dict_id, n.layer, n.feature
    FROM nodes AS n
    JOIN graphs AS g USING (graph_id)
    WHERE n.kind = 'feature' AND (n.kept OR NOT $kept::BOOLEAN) AND g.dict_id = coalesce($dict_id::VARCHAR, g.dict_id)
), sourced AS MATERIALIZED (  -- a step of its own: DuckDB would join the nodes of a graph, each with each, before the edges
    SELECT e.graph_id, e.target_id, e.weight, e.influence, s.dict_id, s.layer, s.feature
    FROM edges AS e
    JOIN ends AS s ON s.graph_id = e.graph_id AND s.node_id = e.source_id
    WHERE e.kept OR NOT $kept::BOOLEAN
), found AS MATERIALIZED (
    SELECT s.dict_id, s.layer AS source_layer, s.feature AS source_feature, t.layer AS target_layer, t.feature AS target_feature,
           count(DISTINCT s.graph_id) AS n_graphs, count(*) AS n_edges, avg(s.weight) AS mean_weight,
           count(*) FILTER (s.weight > 0) / count(*) AS positive_frac, avg(s.influence) AS mean_influence
    FROM sourced AS s
    JOIN ends AS t ON t.graph_id = s.graph_id AND t.node_id = s.target_id
    GROUP BY s.dict_id, s.layer, s.feature, t.layer, t.feature
    HAVING n_graphs >= $min_graphs::BIGINT
    ORDER BY n_graphs DESC, n_edges DESC, s.dict_id, s.layer, s.feature, t.layer, t.feature
    LIMIT $limit::BIGINT
), places AS MATERIALIZED (
    SELECT dict_id, source_layer AS layer, source_feature AS feature FROM found
    UNION
    SELECT dict_id, target_layer, target_feature FROM found
), texts AS MATERIALIZED (
    SELECT dict_id, layer, feature, text FROM best_explanations SEMI JOIN places USING (dict_id, layer, feature)
)
SELECT f.*, b.text AS source_text, c.text AS target_text
FROM found AS f
LEFT JOIN texts AS b ON b.dict_id = f.dict_id AND b.layer = f.source_layer AND b.feature = f.source_feature
LEFT JOIN texts AS c ON c.dict_id = f.dict_id AND c.layer = f.target_layer AND c.feature = f.target_feature
ORDER BY f.n_graphs DESC, f.n_edges DESC, f.dict_id, f.source_layer, f.source_feature, f.target_layer, f.target_feature
