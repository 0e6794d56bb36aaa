-- All grid points of a substitution, on the half of the concepts that chooses the best one.
-- Grain: one row per groups_id, label_from, label_to, n_features, positions, suppress, boost.
-- Order: groups_id, label_from, label_to, n_features, positions, suppress, boost.
-- Reads: substitutions.
-- Parameters:
--   $groups_id: text = NULL   only this comparison
--   $label_from: text = NULL  only prompts of this label
--   $label_to: text = NULL    only answers of this label

SELECT groups_id, dict_id, label_from, label_to, n_features, positions, set_to, suppress, boost, n_suppressed, n_boosted, is_best, n,
       rate_label, rate_concept, rate_right, kl_nats
FROM substitutions
WHERE part = 'choice' AND ($groups_id::VARCHAR IS NULL OR groups_id = $groups_id::VARCHAR)
  AND ($label_from::VARCHAR IS NULL OR label_from = $label_from::VARCHAR)
  AND ($label_to::VARCHAR IS NULL OR label_to = $label_to::VARCHAR)
ORDER BY groups_id, label_from, label_to, n_features, positions, suppress, boost
