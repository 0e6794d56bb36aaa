-- Whether label features turn answers into another label, at the best grid point of each pair of labels, on concepts that did not choose it.
-- Grain: one row per groups_id, label_from, label_to.
-- Order: groups_id, label_from, label_to.
-- Reads: substitutions.
-- Parameters:
--   $groups_id: text = NULL  only this comparison
--   $dict_id: text = NULL    only this dictionary
-- right: share of greedy next tokens that are the concept's answer under label_to. label: share of answers under label_to, right or wrong. Low and
-- high ends of 95 %: Wilson's. untouched: of the model itself. random: of features that fire as often and write as much, in the place of the
-- label's, at best points of their own: mean over draws, _most the largest. reverse, a control of direction: the two
-- labels' features change places, or with set_to exchanged and shifted move the other way. n_suppressed, n_boosted: how many features were set.
-- set_to: what suppress and boost are multiples of.

WITH of_test AS (
    SELECT *, wilson(rate_right, n) AS ends FROM substitutions
    WHERE part = 'test' AND ($groups_id::VARCHAR IS NULL OR groups_id = $groups_id::VARCHAR)
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
)
SELECT groups_id, dict_id, label_from, label_to,
       any_value(n_features) FILTER (control = 'none') AS n_features,
       any_value(n_suppressed) FILTER (control = 'none') AS n_suppressed,
       any_value(n_boosted) FILTER (control = 'none') AS n_boosted,
       any_value(positions) FILTER (control = 'none') AS positions,
       any_value(set_to) FILTER (control = 'none') AS set_to,
       any_value(suppress) FILTER (control = 'none') AS suppress,
       any_value(boost) FILTER (control = 'none') AS boost,
       any_value(n) AS n,
       any_value(rate_right) FILTER (control = 'none') AS "right",
       any_value(ends.low) FILTER (control = 'none') AS right_low,
       any_value(ends.high) FILTER (control = 'none') AS right_high,
       any_value(rate_label) FILTER (control = 'none') AS label,
       any_value(rate_concept) FILTER (control = 'none') AS concept,
       any_value(text_rate_right) FILTER (control = 'none') AS text_right,
       any_value(kl_nats) FILTER (control = 'none') AS kl_nats,
       any_value(rate_right) FILTER (control = 'untouched') AS untouched_right,
       any_value(rate_label) FILTER (control = 'untouched') AS untouched_label,
       avg(rate_right) FILTER (control = 'random') AS random_right,
       max(rate_right) FILTER (control = 'random') AS random_right_most,
       avg(rate_label) FILTER (control = 'random') AS random_label,
       avg(kl_nats) FILTER (control = 'random') AS random_kl_nats,
       count(*) FILTER (control = 'random') AS n_random,
       any_value(rate_right) FILTER (control = 'reverse') AS reverse_right,
       any_value(rate_label) FILTER (control = 'reverse') AS reverse_label
FROM of_test
GROUP BY groups_id, dict_id, label_from, label_to
ORDER BY groups_id, label_from, label_to
