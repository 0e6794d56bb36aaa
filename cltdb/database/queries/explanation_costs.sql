-- What explanations cost: tokens and US dollars of each explainer and language model, in all and per explanation.
-- Grain: one row per dict_id, explainer, model.
-- Order: cost, highest first (unknown last), then dict_id, explainer, model.
-- Reads: explanations.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- cost_usd: of replies whose price is known; n_unknown_cost counts the others. cost_per_explanation: what was paid, failures too,
-- for each that came out. Scores: named query scoring_costs.

SELECT dict_id, explainer, model, count(*) AS n_explanations, count(*) FILTER (status = 'ok') AS n_ok,
       sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens, sum(cost_usd) AS cost_usd,
       count(*) FILTER (cost_usd IS NULL) AS n_unknown_cost, avg(prompt_tokens) AS mean_prompt_tokens,
       sum(cost_usd) / nullif(count(*) FILTER (status = 'ok' AND cost_usd IS NOT NULL), 0) AS cost_per_explanation
FROM explanations
WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND model IS NOT NULL
GROUP BY dict_id, explainer, model
ORDER BY cost_usd DESC NULLS LAST, dict_id, explainer, model
