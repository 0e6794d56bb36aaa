-- What scores cost: tokens and US dollars of each explainer and scorer, in all and per score.
-- Grain: one row per dict_id, explainer, scorer.
-- Order: cost, highest first (unknown last), then dict_id, explainer, scorer.
-- Reads: score_costs.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- cost_usd: of replies whose price is known; n_unknown_cost counts the others. A reply that two scores rest on counts in both; request_costs counts each once.

SELECT dict_id, explainer, scorer, sum(n_scores)::BIGINT AS n_scores, sum(n_ok)::BIGINT AS n_ok, sum(n_failed_windows) AS n_failed_windows,
       sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens, sum(cost_usd ORDER BY layer) AS cost_usd,
       sum(n_scores - n_known_cost)::BIGINT AS n_unknown_cost, sum(cost_usd ORDER BY layer) / nullif(sum(n_ok_known_cost), 0) AS cost_per_score
FROM score_costs
WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY dict_id, explainer, scorer
ORDER BY cost_usd DESC NULLS LAST, dict_id, explainer, scorer
