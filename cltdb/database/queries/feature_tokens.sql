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

WITH peaks AS (
    SELECT peak_token AS token, count(*) AS n_windows, max(max_activation) AS max_activation, avg(max_activation) AS mean_peak
    FROM windows
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
    GROUP BY peak_token
), words AS (
    SELECT token, string FROM vocabulary
    WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR)
)
SELECT p.token, w.string, p.n_windows, p.n_windows / sum(p.n_windows) OVER () AS frac, p.max_activation, p.mean_peak
FROM peaks AS p
LEFT JOIN words AS w ON w.token = p.token
ORDER BY p.n_windows DESC, p.token
LIMIT $limit::BIGINT
