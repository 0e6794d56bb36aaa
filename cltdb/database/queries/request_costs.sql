-- What was asked of language models: requests, tokens, time and US dollars by purpose and model, and the commonest reason of those without a usable answer.
-- Grain: one row per dict_id, purpose, model.
-- Order: dict_id, cost, highest first (unknown last), then purpose, model.
-- Reads: requests.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- cost_usd: what answers cost when they were paid, also by another artifact (n_reused); n_unknown_cost answers have no known price. n_unusable: complete answers of another form than was asked for.

SELECT dict_id, purpose, model, count(*) AS n_requests, count(*) FILTER (status = 'ok') AS n_ok,
       count(*) FILTER (status = 'unusable') AS n_unusable, count(*) FILTER (status = 'failed') AS n_failed,
       count(*) FILTER (status = 'skipped_budget') AS n_skipped_budget, count(*) FILTER (reused) AS n_reused,
       sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens, sum(cost_usd) AS cost_usd,
       count(*) FILTER (status IN ('ok', 'unusable') AND cost_usd IS NULL) AS n_unknown_cost,
       avg(seconds) AS mean_seconds, max(attempts) AS most_attempts, mode(error ORDER BY error) AS commonest_error
FROM requests
WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY dict_id, purpose, model
ORDER BY dict_id, cost_usd DESC NULLS LAST, purpose, model
