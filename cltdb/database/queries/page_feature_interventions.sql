-- The interventions that set a feature, each with the logit that it changed most.
-- Grain: one row per intervention_id, position.
-- Order: the newest first, then intervention_id, position.
-- Reads: intervention_effects, interventions, vocabulary.
-- Parameters:
--   $dict_id: text        the dictionary
--   $layer: integer       the layer the feature reads from
--   $feature: integer     its index in the layer
--   $limit: integer = 20  at most this many rows
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=2 -p feature=126
-- position: where it is set, NULL at all positions. n_settings: how many features the intervention sets. before, after, predicted: of the logit
-- of `string`, all NULL where no logit was measured.

WITH settings AS (
    SELECT intervention_id, graph_id, model_id, prompt, mode, created_at, len(settings) AS n_settings, unnest(settings) AS one
    FROM interventions
    WHERE dict_id = $dict_id::VARCHAR
), chosen AS (
    SELECT * EXCLUDE (one), one.position, one.operation, one.value
    FROM settings
    WHERE one.layer = $layer::INTEGER AND one.feature = $feature::INTEGER
    ORDER BY created_at DESC, intervention_id, one.position
    LIMIT $limit::BIGINT
), changed AS (
    SELECT intervention_id, token, before, after, predicted
    FROM intervention_effects
    WHERE kind = 'logit' AND intervention_id IN (SELECT intervention_id FROM chosen)
    QUALIFY row_number() OVER (PARTITION BY intervention_id ORDER BY abs(after - before) DESC NULLS LAST, position, token) = 1
)
SELECT c.intervention_id, c.graph_id, c.prompt, c.mode, c.n_settings, c.position, c.operation, c.value, v.string, m.before, m.after, m.predicted,
       c.created_at
FROM chosen AS c
LEFT JOIN changed AS m USING (intervention_id)
LEFT JOIN vocabulary AS v ON v.model_id = c.model_id AND v.token = m.token
ORDER BY c.created_at DESC, c.intervention_id, c.position
