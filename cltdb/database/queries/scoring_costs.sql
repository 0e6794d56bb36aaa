-- What scores cost: tokens and US dollars of each explainer and scorer, in all and per score.
-- Grain: one row per dict_id, explainer, scorer.
-- Order: cost, highest first (unknown last), then dict_id, explainer, scorer.
-- Reads: scores.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- cost_usd: of replies whose price is known; n_unknown_cost counts the others. A reply that two scores rest on counts in both; request_costs counts each once.

WITH paid AS (
    SELECT dict_id, explainer, scorer, score, n_failed, detail->>['$.prompt_tokens', '$.completion_tokens', '$.cost_usd'] AS said
    FROM scores
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
)
SELECT dict_id, explainer, scorer, count(*) AS n_scores, count(score) AS n_ok, sum(n_failed) AS n_failed_windows,
       sum(said[1]::BIGINT) AS prompt_tokens, sum(said[2]::BIGINT) AS completion_tokens, sum(said[3]::DOUBLE) AS cost_usd,
       count(*) FILTER (said[3] IS NULL) AS n_unknown_cost,
       sum(said[3]::DOUBLE) / nullif(count(score) FILTER (said[3] IS NOT NULL), 0) AS cost_per_score
FROM paid
GROUP BY dict_id, explainer, scorer
ORDER BY cost_usd DESC NULLS LAST, dict_id, explainer, scorer
