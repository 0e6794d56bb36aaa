-- How many features of two dictionaries were matched one to one, by layer, beside chance, and what became of the others.
-- Grain: one row per dict_a, dict_b, layer.
-- Order: dict_a, dict_b, layer (all together first).
-- Reads: dictionary_matches, feature_matches.
-- Parameters:
--   $dict_a: text = NULL  only with this first dictionary
--   $dict_b: text = NULL  only with this second dictionary
-- share: of the first dictionary's features those matched above 0.7; share_strict: above 0.9; of_b, of_b_strict: the same of the second's.
-- Intervals (_low, _high): 95 %, over features. by_chance: share of the control, rotated or shuffled. highest: mean of the highest similarity with any
-- feature of the other. n_split and so on: rows of table feature_matches, by match.threshold.

WITH related AS (
    SELECT dict_a, dict_b, coalesce(layer_a, layer_b) AS layer, count(*) FILTER (relation = 'split') AS n_split,
           count(*) FILTER (relation = 'merged') AS n_merged, count(*) FILTER (relation = 'appeared') AS n_appeared,
           count(*) FILTER (relation = 'vanished') AS n_vanished
    FROM feature_matches
    WHERE ($dict_a::VARCHAR IS NULL OR dict_a = $dict_a::VARCHAR) AND ($dict_b::VARCHAR IS NULL OR dict_b = $dict_b::VARCHAR)
    GROUP BY GROUPING SETS ((dict_a, dict_b, coalesce(layer_a, layer_b)), (dict_a, dict_b))
), shares AS (
    SELECT dict_a, dict_b, layer, matched_by, any_value(n_a) AS n_a, any_value(n_b) AS n_b,
           max(share_a) FILTER (above = 0.7) AS share, max(share_a_low) FILTER (above = 0.7) AS share_low,
           max(share_a_high) FILTER (above = 0.7) AS share_high, max(control_share) FILTER (above = 0.7) AS by_chance,
           max(share_a) FILTER (above = 0.9) AS share_strict, max(share_a_low) FILTER (above = 0.9) AS share_strict_low,
           max(share_a_high) FILTER (above = 0.9) AS share_strict_high, max(control_share) FILTER (above = 0.9) AS by_chance_strict,
           max(share_b) FILTER (above = 0.7) AS of_b, max(share_b) FILTER (above = 0.9) AS of_b_strict,
           any_value(highest_a) AS highest, any_value(control_highest) AS highest_by_chance
    FROM dictionary_matches
    WHERE ($dict_a::VARCHAR IS NULL OR dict_a = $dict_a::VARCHAR) AND ($dict_b::VARCHAR IS NULL OR dict_b = $dict_b::VARCHAR)
    GROUP BY dict_a, dict_b, layer, matched_by
)
SELECT s.*, r.n_split, r.n_merged, r.n_appeared, r.n_vanished
FROM shares AS s
LEFT JOIN related AS r ON r.dict_a = s.dict_a AND r.dict_b = s.dict_b AND r.layer IS NOT DISTINCT FROM s.layer
ORDER BY s.dict_a, s.dict_b, s.layer NULLS FIRST
