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
-- whose weight is above 0. Nodes and pairs of features are numbered: a join or a group by one number takes a sixth of one by names and numbers.
-- Features of fewer graphs are passed over before the edges are joined, and pairs of fewer edges before their graphs are counted.

WITH numbered AS MATERIALIZED (
    SELECT graph_id, dict_id, row_number() OVER () AS number FROM graphs WHERE dict_id = coalesce($dict_id::VARCHAR, dict_id)
), placed AS MATERIALIZED (
    SELECT g.number, n.node_id, g.dict_id, n.layer, n.feature
    FROM nodes AS n
    JOIN numbered AS g USING (graph_id)
    WHERE n.kind = 'feature' AND (n.kept OR NOT $kept::BOOLEAN)
), features_of_many AS MATERIALIZED (
    SELECT dict_id, layer, feature, row_number() OVER () AS place
    FROM placed
    GROUP BY dict_id, layer, feature
    HAVING count(DISTINCT number) >= $min_graphs::BIGINT
), ends AS MATERIALIZED (
    SELECT n.number * 4294967296 + n.node_id AS node, f.place
    FROM placed AS n
    JOIN features_of_many AS f USING (dict_id, layer, feature)
), between AS MATERIALIZED (
    SELECT e.number, s.place * 4294967296 + t.place AS pair, e.weight, e.influence
    FROM (
        SELECT g.number, g.number * 4294967296 + e.source_id AS source, g.number * 4294967296 + e.target_id AS target, e.weight, e.influence
        FROM edges AS e
        JOIN numbered AS g USING (graph_id)
        WHERE e.kept OR NOT $kept::BOOLEAN
    ) AS e
    JOIN ends AS s ON s.node = e.source
    JOIN ends AS t ON t.node = e.target
), counted AS MATERIALIZED (
    SELECT pair, count(DISTINCT number) AS n_graphs, count(*) AS n_edges, avg(weight) AS mean_weight,
           count(*) FILTER (weight > 0) / count(*) AS positive_frac, avg(influence) AS mean_influence
    FROM between
    SEMI JOIN (SELECT pair FROM between GROUP BY pair HAVING count(*) >= $min_graphs::BIGINT) USING (pair)
    GROUP BY pair
    HAVING n_graphs >= $min_graphs::BIGINT
), found AS MATERIALIZED (
    SELECT s.dict_id, s.layer AS source_layer, s.feature AS source_feature, t.layer AS target_layer, t.feature AS target_feature,
           c.n_graphs, c.n_edges, c.mean_weight, c.positive_frac, c.mean_influence
    FROM counted AS c
    JOIN features_of_many AS s ON s.place = c.pair >> 32
    JOIN features_of_many AS t ON t.place = c.pair & 4294967295
    ORDER BY c.n_graphs DESC, c.n_edges DESC, s.dict_id, s.layer, s.feature, t.layer, t.feature
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
