-- The interventions that set a feature, each with the logit that it changed most.
-- Grain: one row per intervention_id.
-- Order: the newest first, then intervention_id.
-- Reads: intervention_effects, interventions, vocabulary.
-- Parameters:
--   $dict_id: text        the dictionary
--   $layer: integer       the layer the feature reads from
--   $feature: integer     its index in the layer
--   $limit: integer = 20  at most this many rows
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=2 -p feature=126
-- settings: what is done to this feature, one entry for each position (NULL: all positions). n_features: how many features the intervention sets.
-- before, after, predicted: of the logit of `string`, all NULL where no logit was measured.

WITH chosen AS (
    SELECT intervention_id, graph_id, model_id, prompt, mode, created_at,
           len(list_distinct(list_transform(settings, lambda one: {layer: one.layer, feature: one.feature}))) AS n_features,
           list_sort(list_transform(
               list_filter(settings, lambda one: one.layer = $layer::INTEGER AND one.feature = $feature::INTEGER),
               lambda one: {position: one.position, operation: one.operation, value: one.value})) AS settings
    FROM interventions
    WHERE dict_id = $dict_id::VARCHAR
      AND len(list_filter(settings, lambda one: one.layer = $layer::INTEGER AND one.feature = $feature::INTEGER)) > 0
    ORDER BY created_at DESC NULLS LAST, intervention_id
    LIMIT $limit::BIGINT
), changed AS (
    SELECT intervention_id, token, before, after, predicted
    FROM intervention_effects
    WHERE kind = 'logit' AND intervention_id IN (SELECT intervention_id FROM chosen)
    QUALIFY row_number() OVER (PARTITION BY intervention_id ORDER BY abs(after - before) DESC NULLS LAST, position, token) = 1
)
SELECT c.intervention_id, c.graph_id, c.prompt, c.mode, c.n_features, c.settings, v.string, m.before, m.after, m.predicted, c.created_at
FROM chosen AS c
LEFT JOIN changed AS m USING (intervention_id)
LEFT JOIN vocabulary AS v ON v.model_id = c.model_id AND v.token = m.token
ORDER BY c.created_at DESC NULLS LAST, c.intervention_id
