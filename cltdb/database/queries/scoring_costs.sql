-- What scores cost: tokens and US dollars of each explainer and scorer, in all and per score.
-- Grain: one row per dict_id, explainer, scorer.
-- Order: cost, highest first (unknown last), then dict_id, explainer, scorer.
-- Reads: scores.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- cost_usd: of replies whose price is known; n_unknown_cost counts the others.

WITH paid AS (
    SELECT dict_id, explainer, scorer, score, n_failed, (detail->>'prompt_tokens')::BIGINT AS prompt_tokens,
           (detail->>'completion_tokens')::BIGINT AS completion_tokens, (detail->>'cost_usd')::DOUBLE AS cost_usd
    FROM scores
    WHERE dict_id = coalesce($dict_id::VARCHAR, dict_id)
)
SELECT dict_id, explainer, scorer, count(*) AS n_scores, count(score) AS n_ok, sum(n_failed) AS n_failed_windows,
       sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens, sum(cost_usd) AS cost_usd,
       count(*) FILTER (cost_usd IS NULL) AS n_unknown_cost,
       sum(cost_usd) / nullif(count(score) FILTER (cost_usd IS NOT NULL), 0) AS cost_per_score
FROM paid
GROUP BY dict_id, explainer, scorer
ORDER BY cost_usd DESC NULLS LAST, dict_id, explainer, scorer
