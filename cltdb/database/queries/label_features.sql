-- Features that make answers ones of a label, such as a language: what they read, and whether they tell the label of text.
-- Grain: one row per groups_id, label, layer, feature.
-- Order: groups_id, label, contrast (highest first).
-- Reads: best_explanations, label_features.
-- Parameters:
--   $groups_id: text = NULL     only this comparison
--   $dict_id: text = NULL       only this dictionary
--   $label: text = NULL         only this label
--   $first_layer: integer = 0   only features of this layer and later ones
--   $limit: integer = 100       at most this many of each label, those of highest contrast
-- effect: what it adds to the label's answer, along all paths. auc: of its mean activation on pieces of held-out text; auc_matched: at equal token
-- frequency, which keeps matched_share of the tokens. text: the best explanation of the feature.

SELECT f.groups_id, f.dict_id, f.label, f.layer, f.feature, f.contrast, f.influence, f.effect, f.recurrence, f.auc, f.auc_matched, f.matched_share,
       f.embedding_share, f.probe_cosine, f.high, b.text
FROM label_features AS f
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
WHERE ($groups_id::VARCHAR IS NULL OR f.groups_id = $groups_id::VARCHAR) AND ($dict_id::VARCHAR IS NULL OR f.dict_id = $dict_id::VARCHAR)
  AND ($label::VARCHAR IS NULL OR f.label = $label::VARCHAR) AND f.layer >= $first_layer::INTEGER
QUALIFY row_number() OVER (PARTITION BY f.groups_id, f.label ORDER BY f.contrast DESC, f.layer, f.feature) <= $limit::BIGINT
ORDER BY f.groups_id, f.label, f.contrast DESC, f.layer, f.feature
