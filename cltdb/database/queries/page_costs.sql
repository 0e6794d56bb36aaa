-- What the answers of language models cost for each dictionary, for the browser's lists of experiments; request_costs has it by purpose and model.
-- Grain: one row per dict_id.
-- Order: dict_id.
-- Reads: requests.
-- Parameters: none
-- n_unknown_cost: answers without a known price.

SELECT dict_id, sum(cost_usd) AS cost_usd, count(*) FILTER (status IN ('ok', 'unusable') AND cost_usd IS NULL) AS n_unknown_cost
FROM requests
GROUP BY dict_id
ORDER BY dict_id
