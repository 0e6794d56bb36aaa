-- The token that each feature of a graph promotes most, by the direct path to the logits.
-- Grain: one row per node_id of a feature with known logit effects.
-- Order: node_id.
-- Reads: features, graphs, nodes, vocabulary.
-- Parameters:
--   $graph_id: text  the graph
-- Example: -p graph_id=capital-of-france-10de5653

WITH g AS (
    SELECT dict_id, model_id FROM graphs WHERE graph_id = $graph_id::VARCHAR
), n AS (
    SELECT node_id, layer, feature FROM nodes WHERE graph_id = $graph_id::VARCHAR AND kind = 'feature'
), known AS (
    SELECT layer, feature, top_logits[1].token AS token, top_logits[1].value AS value
    FROM features
    WHERE dict_id = (SELECT dict_id FROM g) AND (layer, feature) IN (SELECT (layer, feature) FROM n)
)
SELECT n.node_id, k.token, v.string, k.value
FROM n
JOIN known AS k USING (layer, feature)
CROSS JOIN g
JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = k.token
ORDER BY n.node_id
