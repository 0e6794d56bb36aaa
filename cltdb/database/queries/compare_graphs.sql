-- Dictionaries of one model beside each other on the same prompts (a CLT and a PLT, say): scores of their graphs, lengths of paths, where
-- influence enters, and what ablations say of each.
-- Grain: one row per pair of graphs of the same tokens and target.
-- Order: prompt_id, prompt, dict_id, other, graph_id, other_graph_id.
-- Reads: dictionaries, graphs, intervention_effects, interventions, nodes.
-- Parameters:
--   $dict_id: text = NULL  the first dictionary; without it all others, and without both all pairs, each once
--   $other: text = NULL    the second dictionary; without it all others; the first once more: its own graphs beside each other, in both orders
-- input_correlation: Pearson, over token positions, of the influence that embeddings have in the two graphs.
-- The other columns are about the ablations of stage attribute: the graphs.n_ablations most influential features, each set to 0 by itself. Their
-- effect is the change of the explained logits, weighted by probability. *_error: mean |measured - predicted| divided by mean |measured|; 0 where
-- the graph predicts every effect, 1 where it is as wrong as predicting none. *_spearman: rank correlation of influence with |measured|.
-- replacement_*: measured in the replacement model, which tells whether the graph is right about its own dictionary. model_*: measured in the
-- model, which tells whether the dictionary is right about the model. Effects of CLT features count there in part twice: later MLPs respond to
-- what the feature writes, and the feature writes to their outputs besides. supported: the dict_id of the smaller model_error.

WITH effect AS (
    SELECT i.graph_id, i.mode, i.intervention_id, any_value(i.settings[1]) AS ablated,
           sum(n.probability * abs(e.after - e.before)) / sum(n.probability) AS measured,
           sum(n.probability * abs(e.after - e.predicted)) / sum(n.probability) AS missed
    FROM interventions AS i
    JOIN intervention_effects AS e ON e.intervention_id = i.intervention_id AND e.kind = 'logit'
    JOIN nodes AS n ON n.graph_id = i.graph_id AND n.kind = 'logit' AND n.token IS NOT DISTINCT FROM e.token
    WHERE starts_with(i.intervention_id, i.graph_id || '-ablate-') AND e.predicted IS NOT NULL
    GROUP BY i.graph_id, i.mode, i.intervention_id
), placed AS (
    SELECT e.*, n.influence
    FROM effect AS e
    JOIN nodes AS n ON n.graph_id = e.graph_id AND n.kind = 'feature' AND n.layer = e.ablated.layer
        AND n.feature = e.ablated.feature AND n.position = e.ablated.position
), ranked AS (
    SELECT graph_id, mode, measured, missed,
           rank() OVER (PARTITION BY graph_id, mode ORDER BY influence)
               + count(*) OVER (PARTITION BY graph_id, mode, influence) / 2 AS influence_rank,
           rank() OVER (PARTITION BY graph_id, mode ORDER BY measured)
               + count(*) OVER (PARTITION BY graph_id, mode, measured) / 2 AS measured_rank
    FROM placed
), checked AS (
    SELECT graph_id, mode, sum(missed) / nullif(sum(measured), 0) AS error,
           nullif(corr(influence_rank, measured_rank), 'nan') AS spearman
    FROM ranked GROUP BY graph_id, mode
), graph AS (
    SELECT g.*, d.kind, r.error AS replacement_error, r.spearman AS replacement_spearman, f.error AS model_error,
           f.spearman AS model_spearman
    FROM graphs AS g
    LEFT JOIN dictionaries AS d USING (dict_id)
    LEFT JOIN checked AS r ON r.graph_id = g.graph_id AND r.mode = 'iterative'
    LEFT JOIN checked AS f ON f.graph_id = g.graph_id AND f.mode = 'free'
    WHERE g.target IS NULL OR NOT regexp_matches(g.target, '^feature \d+:\d+@')  -- a feature of one dictionary is none of another
), pair AS (
    SELECT a.graph_id, b.graph_id AS other_graph_id
    FROM graph AS a
    JOIN graph AS b ON a.model_id = b.model_id AND a.tokens = b.tokens
        AND a.target IS NOT DISTINCT FROM b.target AND a.foil IS NOT DISTINCT FROM b.foil
    WHERE a.dict_id = coalesce($dict_id::VARCHAR, a.dict_id) AND b.dict_id = coalesce($other::VARCHAR, b.dict_id)
        AND CASE WHEN $dict_id::VARCHAR IS NOT NULL AND $other::VARCHAR IS NOT NULL THEN a.graph_id <> b.graph_id
                 WHEN $dict_id::VARCHAR IS NOT NULL OR $other::VARCHAR IS NOT NULL THEN a.dict_id <> b.dict_id
                 ELSE a.dict_id < b.dict_id END
), input AS (
    SELECT p.graph_id, p.other_graph_id, nullif(corr(n.influence, m.influence), 'nan') AS correlation
    FROM pair AS p
    JOIN nodes AS n ON n.graph_id = p.graph_id AND n.kind = 'embedding'
    JOIN nodes AS m ON m.graph_id = p.other_graph_id AND m.kind = 'embedding' AND m.position = n.position
    GROUP BY p.graph_id, p.other_graph_id
)
SELECT a.prompt_id, a.prompt, a.target, a.foil, a.dict_id, b.dict_id AS other, a.kind, b.kind AS other_kind,
       a.replacement_score, b.replacement_score AS other_replacement_score,
       a.completeness_score, b.completeness_score AS other_completeness_score,
       a.error_share, b.error_share AS other_error_share,
       a.mean_path_length, b.mean_path_length AS other_mean_path_length,
       i.correlation AS input_correlation,
       a.replacement_error, b.replacement_error AS other_replacement_error,
       a.replacement_spearman, b.replacement_spearman AS other_replacement_spearman,
       a.model_error, b.model_error AS other_model_error,
       a.model_spearman, b.model_spearman AS other_model_spearman,
       CASE WHEN a.model_error < b.model_error THEN a.dict_id WHEN b.model_error < a.model_error THEN b.dict_id END AS supported,
       a.graph_id, b.graph_id AS other_graph_id
FROM pair AS p
JOIN graph AS a ON a.graph_id = p.graph_id
JOIN graph AS b ON b.graph_id = p.other_graph_id
LEFT JOIN input AS i ON i.graph_id = p.graph_id AND i.other_graph_id = p.other_graph_id
ORDER BY a.prompt_id, a.prompt, a.dict_id, b.dict_id, a.graph_id, b.graph_id
