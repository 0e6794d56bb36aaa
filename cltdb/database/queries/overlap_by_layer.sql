-- How much labels, such as languages, share in each layer, beside what prompts of other concepts share.
-- Grain: one row per groups_id, layer, label_a, label_b.
-- Order: groups_id, pair of labels (all pairs first), layer.
-- Reads: group_overlaps.
-- Parameters:
--   $groups_id: text = NULL            only this comparison
--   $dict_id: text = NULL              only this dictionary
--   $keyed_by: free | end = free       free: a feature counts at any position; end: at each position from the prompt's end
--   $weighting: none | influence = none  none: Jaccard of the active features; influence: smaller over larger influences on the answer
-- overlap: of the two labels, one concept. same_label: of two concepts, one label; other_label: of two concepts, one under each label.
-- corrected: overlap less other_label, what the labels share because the concept is the same. Intervals (_low, _high): 95 %, over concepts.
-- label_a and label_b NULL: all pairs together.

SELECT groups_id, dict_id, label_a, label_b, layer,
       any_value(value) FILTER (null_kind = 'none') AS overlap,
       any_value(ci_low) FILTER (null_kind = 'none') AS overlap_low,
       any_value(ci_high) FILTER (null_kind = 'none') AS overlap_high,
       any_value(value) FILTER (null_kind = 'same_label') AS same_label,
       any_value(ci_low) FILTER (null_kind = 'same_label') AS same_label_low,
       any_value(ci_high) FILTER (null_kind = 'same_label') AS same_label_high,
       any_value(value) FILTER (null_kind = 'other_label') AS other_label,
       any_value(ci_low) FILTER (null_kind = 'other_label') AS other_label_low,
       any_value(ci_high) FILTER (null_kind = 'other_label') AS other_label_high,
       any_value(corrected) FILTER (null_kind = 'other_label') AS corrected,
       any_value(corrected_ci_low) FILTER (null_kind = 'other_label') AS corrected_low,
       any_value(corrected_ci_high) FILTER (null_kind = 'other_label') AS corrected_high,
       any_value(n) FILTER (null_kind = 'none') AS n
FROM group_overlaps
WHERE keyed_by = $keyed_by::VARCHAR AND weighting = $weighting::VARCHAR
  AND ($groups_id::VARCHAR IS NULL OR groups_id = $groups_id::VARCHAR)
  AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY groups_id, dict_id, label_a, label_b, layer
ORDER BY groups_id, label_a NULLS FIRST, label_b NULLS FIRST, layer
