-- What a graph explains: its logits with their probabilities, or the feature that was its target.
-- Grain: one row per node_id.
-- Order: probability, highest first, then node_id.
-- Reads: graphs, nodes, vocabulary.
-- Parameters:
--   $graph_id: text  the graph
-- Example: -p graph_id=capital-of-france-10de5653

SELECT n.node_id, n.kind, n.token, coalesce(v.string, n.label) AS string, n.layer, n.feature, n.position, n.probability,
       n.pre_activation, n.bias, n.dropped_mass
FROM nodes AS n
JOIN graphs AS g USING (graph_id)
LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = n.token AND n.kind = 'logit'
WHERE n.graph_id = $graph_id::VARCHAR AND n.probability IS NOT NULL
ORDER BY n.probability DESC, n.node_id
