-- The features that an intervention changed most, with their node in a graph and their explanation.
-- Grain: one row per layer, position, feature.
-- Order: absolute change, largest first, then layer, position, feature.
-- Reads: best_explanations, intervention_effects, interventions, nodes.
-- Parameters:
--   $intervention_id: text  the intervention
--   $graph_id: text         the graph whose nodes are named
--   $limit: integer = 50    at most this many rows
-- Example: -p intervention_id=capital-of-france-10de5653-ablate-0-26-4 -p graph_id=capital-of-france-10de5653

SELECT e.layer, e.position, e.feature, n.node_id, x.text, e.before, e.after, e.predicted
FROM intervention_effects AS e
JOIN interventions AS i USING (intervention_id)
LEFT JOIN nodes AS n ON n.graph_id = $graph_id::VARCHAR AND n.kind = 'feature' AND n.layer = e.layer AND n.position = e.position
    AND n.feature = e.feature
LEFT JOIN best_explanations AS x ON x.dict_id = i.dict_id AND x.layer = e.layer AND x.feature = e.feature
WHERE e.intervention_id = $intervention_id::VARCHAR AND e.kind = 'feature'
ORDER BY abs(e.after - e.before) DESC, e.layer, e.position, e.feature
LIMIT $limit::BIGINT
