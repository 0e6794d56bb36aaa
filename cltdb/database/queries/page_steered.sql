-- The interventions that set a feature: what was done, and what the answer then was.
-- Grain: one row per intervention_id.
-- Order: newest first, then intervention_id.
-- Reads: intervention_effects, interventions, vocabulary.
-- Parameters:
--   $dict_id: text            the dictionary
--   $layer: integer           the layer the feature reads from
--   $feature: integer         its index in the layer
--   $by_hand: boolean = true  true: without the ablations of stage attribute
--   $limit: integer = 10      at most this many rows
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=2 -p feature=126
-- logits: as of graph_interventions.

WITH chosen AS (
    SELECT intervention_id, graph_id, model_id, prompt, mode, until_layer, settings, created_at, text_without, text_with
    FROM interventions
    WHERE dict_id = $dict_id::VARCHAR
      AND len(list_filter(settings, lambda one: one.layer = $layer::INTEGER AND one.feature = $feature::INTEGER)) > 0
      AND NOT ($by_hand::BOOLEAN AND graph_id IS NOT NULL AND starts_with(intervention_id, graph_id || '-ablate-'))
    ORDER BY created_at DESC NULLS LAST, intervention_id
    LIMIT $limit::BIGINT
), measured AS (
    SELECT e.intervention_id,
           list({token: e.token, string: w.string, before: e.before, after: e.after, predicted: e.predicted,
                 probability_before: e.probability_before, probability_after: e.probability_after}
                ORDER BY abs(coalesce(e.probability_after - e.probability_before, 0)) DESC, abs(e.after - e.before) DESC, e.token) AS logits
    FROM intervention_effects AS e
    JOIN chosen AS c USING (intervention_id)
    LEFT JOIN vocabulary AS w ON w.model_id = c.model_id AND w.token = e.token
    WHERE e.kind = 'logit'
    GROUP BY e.intervention_id
)
SELECT c.* EXCLUDE (model_id), m.logits
FROM chosen AS c
LEFT JOIN measured AS m USING (intervention_id)
ORDER BY c.created_at DESC NULLS LAST, c.intervention_id
