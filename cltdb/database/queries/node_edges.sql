-- The strongest edges into and out of one node of a graph, each with the node at its other end.
-- Grain: one row per direction, node_id.
-- Order: direction (in, out), then the absolute weight, highest first, then node_id.
-- Reads: best_explanations, edges, graphs, nodes, vocabulary.
-- Parameters:
--   $graph_id: text        the graph
--   $node_id: integer      the node
--   $limit: integer = 40   at most this many per direction
-- Example: -p graph_id=capital-of-france-10de5653 -p node_id=21
-- node_id and the columns of a node are those of the other end. The edges are those of the whole graph, pruned away or not.

WITH g AS (
    SELECT dict_id, model_id, tokens, token_strings FROM graphs WHERE graph_id = $graph_id::VARCHAR
), near AS (
    SELECT 'in' AS direction, source_id AS node_id, weight, influence, measured
    FROM edges WHERE graph_id = $graph_id::VARCHAR AND target_id = $node_id::INTEGER AND NOT isnan(weight)
    UNION ALL
    SELECT 'out', target_id, weight, influence, measured
    FROM edges WHERE graph_id = $graph_id::VARCHAR AND source_id = $node_id::INTEGER AND NOT isnan(weight)
), strongest AS (
    SELECT * FROM near
    QUALIFY row_number() OVER (PARTITION BY direction ORDER BY abs(weight) DESC, node_id) <= $limit::BIGINT
), ends AS (
    SELECT s.*, n.kind, n.layer, n.position, n.feature, n.token, n.label, n.probability
    FROM strongest AS s
    JOIN nodes AS n ON n.graph_id = $graph_id::VARCHAR AND n.node_id = s.node_id
), cards AS (
    SELECT layer, feature, text FROM best_explanations
    WHERE dict_id = (SELECT dict_id FROM g) AND (layer, feature) IN (SELECT (layer, feature) FROM ends)
)
SELECT e.direction, e.node_id, e.kind, e.layer, e.position, e.feature,
       coalesce(v.string, CASE e.kind WHEN 'logit' THEN e.label ELSE g.token_strings[e.position + 1] END) AS string,
       e.probability, CASE e.kind WHEN 'feature' THEN coalesce(c.text, e.label) END AS text,
       e.weight, e.influence, e.measured
FROM ends AS e
CROSS JOIN g
LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = coalesce(e.token, g.tokens[e.position + 1])
LEFT JOIN cards AS c ON e.kind = 'feature' AND c.layer = e.layer AND c.feature = e.feature
ORDER BY e.direction, abs(e.weight) DESC, e.node_id
