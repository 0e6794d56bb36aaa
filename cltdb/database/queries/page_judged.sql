-- What each scorer counted when it judged the explanations of a feature, as it stored it.
-- Grain: one row per side, explainer, scorer.
-- Order: side, explanations before baselines, explainer, scorer.
-- Reads: scores.
-- Parameters:
--   $dict_id: text     the dictionary
--   $layer: integer    the layer the feature reads from
--   $feature: integer  its index in the layer
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=2 -p feature=126
-- detail: a JSON object. Of yes and no: n_pos, n_neg, the shares of right answers tpr and tnr, and negatives, how many there were of each kind;
-- of choices n_right; of activations n_tokens. Which windows were judged right is not in it.

SELECT side, explainer, scorer, score, n, n_failed, judge, detail
FROM scores
WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
ORDER BY side, starts_with(explainer, 'baseline:'), explainer, scorer
