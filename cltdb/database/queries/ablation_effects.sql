-- What interventions did to the logits of a graph's prompt, beside what the graph predicts.
-- Grain: one row per intervention_id, position, token.
-- Order: absolute effect, largest first, then intervention_id, position, token.
-- Reads: intervention_effects, interventions, vocabulary.
-- Parameters:
--   $graph_id: text        the graph
--   $mode: text = NULL     only this mode: constrained, iterative, free or frozen_attention
--   $limit: integer = 100  at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653
-- Of an intervention on several features, or at several positions, the first is shown. n_features: how many features it sets;
-- n_settings: the same, each as often as positions at which it is set.

SELECT i.intervention_id, i.mode,
       len(list_distinct(list_transform(i.settings, lambda one: {layer: one.layer, feature: one.feature}))) AS n_features,
       len(i.settings) AS n_settings, i.settings[1].layer AS layer, i.settings[1].feature AS feature,
       i.settings[1].position AS feature_position, i.settings[1].operation AS operation, i.settings[1].value AS value,
       e.position, e.token, v.string, e.before, e.after, e.after - e.before AS effect, e.predicted - e.before AS predicted_effect
FROM interventions AS i
JOIN intervention_effects AS e USING (intervention_id)
LEFT JOIN vocabulary AS v ON v.model_id = i.model_id AND v.token = e.token
WHERE i.graph_id = $graph_id::VARCHAR AND e.kind = 'logit' AND i.mode = coalesce($mode::VARCHAR, i.mode)
ORDER BY abs(effect) DESC, i.intervention_id, e.position, e.token
LIMIT $limit::BIGINT
