-- The interventions on the prompt of a graph: what was done, and what the answer then was.
-- Grain: one row per intervention_id.
-- Order: made by hand before those of stage attribute, then newest first, then intervention_id.
-- Reads: graphs, intervention_effects, interventions, vocabulary.
-- Parameters:
--   $graph_id: text                the graph
--   $intervention_id: text = NULL  only this intervention
--   $by_hand: boolean = true       true: without the ablations of stage attribute
--   $limit: integer = 100          at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653
-- Interventions belong to a graph that were made with --graph, or with the same dictionary on a prompt of the same tokens. logits: the tokens whose
-- logit was measured, most changed first: token, string, before, after, predicted, probability_before, probability_after (NULL where they are
-- not known).

WITH g AS (
    SELECT graph_id, dict_id, model_id, tokens FROM graphs WHERE graph_id = $graph_id::VARCHAR
), chosen AS (
    SELECT i.*, starts_with(i.intervention_id, g.graph_id || '-ablate-') AS of_stage
    FROM interventions AS i
    JOIN g ON i.graph_id = g.graph_id OR i.graph_id IS NULL AND i.dict_id = g.dict_id AND i.tokens = g.tokens
    WHERE ($intervention_id::VARCHAR IS NULL OR i.intervention_id = $intervention_id::VARCHAR)
      AND NOT ($by_hand::BOOLEAN AND of_stage)
), words AS (
    SELECT token, string FROM vocabulary WHERE model_id = (SELECT model_id FROM g)
), measured AS (
    SELECT e.intervention_id,
           list({token: e.token, string: w.string, before: e.before, after: e.after, predicted: e.predicted,
                 probability_before: e.probability_before, probability_after: e.probability_after}
                ORDER BY abs(coalesce(e.probability_after - e.probability_before, 0)) DESC, abs(e.after - e.before) DESC, e.token) AS logits
    FROM intervention_effects AS e
    LEFT JOIN words AS w ON w.token = e.token
    WHERE e.kind = 'logit' AND e.intervention_id IN (SELECT intervention_id FROM chosen)
    GROUP BY e.intervention_id
)
SELECT c.intervention_id, c.mode, c.until_layer, c.settings, c.created_at, c.of_stage, c.text_without, c.text_with, m.logits
FROM chosen AS c
LEFT JOIN measured AS m USING (intervention_id)
ORDER BY c.of_stage, c.created_at DESC NULLS LAST, c.intervention_id
LIMIT $limit::BIGINT
