-- Dictionaries with the headline numbers of their evaluation (pooled) and how much of them is explained.
-- Grain: one row per dict_id.
-- Order: experiment, dict_id.
-- Reads: dictionaries, feature_cards, graphs, metrics.
-- Parameters: none

WITH pooled AS (
    SELECT dict_id,
           max(value) FILTER (name = 'fvu') AS fvu,
           max(value) FILTER (name = 'l0') AS l0,
           max(value) FILTER (name = 'dead_frac') AS dead_frac,
           max(value) FILTER (name = 'ce_recovered') AS ce_recovered,
           max(value) FILTER (name = 'kl_nats') AS kl_nats,
           max(value) FILTER (name = 'top1_agreement') AS top1_agreement,
           max(value) FILTER (name = 'top1_agreement_confident') AS top1_agreement_confident,
           max(value) FILTER (name = 'ce_original') AS ce_original,
           max(value) FILTER (name = 'ce_replacement') AS ce_replacement,
           max(value) FILTER (name = 'ce_mean') AS ce_mean,
           max(value) FILTER (name = 'ce_zero') AS ce_zero
    FROM metrics
    WHERE stage = 'evaluate' AND layer IS NULL AND variant IS NULL AND label IS NULL
    GROUP BY dict_id
), explained AS (
    SELECT dict_id, count(text) AS n_explained, avg(score) AS mean_score FROM feature_cards GROUP BY dict_id
), drawn AS (
    SELECT dict_id, count(*) AS n_graphs FROM graphs GROUP BY dict_id
)
SELECT d.dict_id, d.experiment, d.model_id, d.kind, d.activation, d.n_layers, d.n_features, d.d_model,
       p.* EXCLUDE (dict_id), coalesce(e.n_explained, 0) AS n_explained, e.mean_score, coalesce(g.n_graphs, 0) AS n_graphs
FROM dictionaries AS d
LEFT JOIN pooled AS p USING (dict_id)
LEFT JOIN explained AS e USING (dict_id)
LEFT JOIN drawn AS g USING (dict_id)
ORDER BY d.experiment NULLS LAST, d.dict_id
