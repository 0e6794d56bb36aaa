-- The nodes of a graph, with the token at their position and their explanation.
-- Grain: one row per node_id.
-- Order: node_id.
-- Reads: feature_cards, graphs, nodes, vocabulary.
-- Parameters:
--   $graph_id: text         the graph
--   $kept: boolean = false  true: only nodes that survive pruning
-- Example: -p graph_id=capital-of-france-10de5653

WITH g AS (
    SELECT * FROM graphs WHERE graph_id = $graph_id::VARCHAR
), n AS (
    SELECT * FROM nodes WHERE graph_id = $graph_id::VARCHAR AND (kept OR NOT $kept::BOOLEAN)
), cards AS (
    SELECT layer, feature, text, score FROM feature_cards WHERE dict_id = (SELECT dict_id FROM g)
)
SELECT n.node_id, n.kind, n.layer, n.position, n.feature, n.activation, n.pre_activation, n.bias, n.influence, n.token,
       coalesce(v.string, CASE n.kind WHEN 'logit' THEN n.label ELSE g.token_strings[n.position + 1] END) AS string,
       n.probability, n.expanded, n.dropped_mass, n.kept,
       CASE n.kind WHEN 'feature' THEN coalesce(c.text, n.label) END AS text, c.score
FROM n
CROSS JOIN g
LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = coalesce(n.token, g.tokens[n.position + 1])
LEFT JOIN cards AS c ON n.kind = 'feature' AND c.layer = n.layer AND c.feature = n.feature
ORDER BY n.node_id
