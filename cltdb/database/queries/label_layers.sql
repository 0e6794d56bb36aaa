-- How many features of each layer fire on few labels of the text (languages, say), and how many on all.
-- Grain: one row per dict_id, layer.
-- Order: dict_id, layer.
-- Reads: features.
-- Parameters:
--   $dict_id: text = NULL       only this dictionary
--   $specific: number = 0.5     label entropy up to which a feature is specific
--   $shared: number = 0.9       label entropy from which it is shared
-- n_features: those that fire on text with a label. n_matched: specific ones that keep at least half of what they tell at equal token
-- frequency. Features that fire seldom look specific by chance: query label_specific asks for a number of firings.

SELECT dict_id, layer, count(*) AS n_features,
       count(*) FILTER (label_entropy <= $specific::DOUBLE) AS n_specific,
       count(*) FILTER (label_entropy <= $specific::DOUBLE AND label_information_bits > 1e-9
                         AND label_information_matched_bits >= label_information_bits / 2) AS n_matched,
       count(*) FILTER (label_entropy >= $shared::DOUBLE) AS n_shared,
       n_specific / n_features AS specific_frac, n_shared / n_features AS shared_frac, avg(label_entropy) AS mean_entropy
FROM features
WHERE label_entropy IS NOT NULL AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY dict_id, layer
ORDER BY dict_id, layer
