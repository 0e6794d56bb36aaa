-- How well the features of each label tell its text together, by the layers that they are of and how many they are.
-- Grain: one row per groups_id, label, first_layer, n_features.
-- Order: groups_id, label, first_layer, n_features.
-- Reads: label_scores.
-- Parameters:
--   $groups_id: text = NULL  only this comparison
--   $dict_id: text = NULL    only this dictionary
-- auc: balanced, of the sum of the features of highest contrast on pieces of held-out text; auc_matched: at equal token
-- frequency, which keeps matched_share of the tokens. fitted_auc, fitted_auc_matched: the same of the sum with weights that a
-- logistic regression finds on other pieces.

SELECT groups_id, dict_id, label, first_layer, n_features, auc, auc_matched, matched_share, fitted_auc,
       fitted_auc_matched, n_pieces
FROM label_scores
WHERE ($groups_id::VARCHAR IS NULL OR groups_id = $groups_id::VARCHAR) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
ORDER BY groups_id, label, first_layer, n_features
