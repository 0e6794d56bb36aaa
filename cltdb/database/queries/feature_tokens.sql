-- The tokens on which the windows of one feature peak.
-- Grain: one row per token.
-- Order: number of windows, highest first, then token.
-- Reads: dictionaries, vocabulary, windows.
-- Parameters:
--   $dict_id: text        the dictionary
--   $layer: integer       the layer the feature reads from
--   $feature: integer     its index in the layer
--   $limit: integer = 50  at most this many rows
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222
-- frac: share of the feature's windows (0 to 1). mean_peak: mean activation at these peaks, in model units.

SELECT w.peak_token AS token, any_value(v.string) AS string, count(*) AS n_windows, count(*) / sum(count(*)) OVER () AS frac,
       max(w.max_activation) AS max_activation, avg(w.max_activation) AS mean_peak
FROM windows AS w
LEFT JOIN vocabulary AS v
    ON v.model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR) AND v.token = w.peak_token
WHERE w.dict_id = $dict_id::VARCHAR AND w.layer = $layer::INTEGER AND w.feature = $feature::INTEGER
GROUP BY w.peak_token
ORDER BY n_windows DESC, w.peak_token
LIMIT $limit::BIGINT
