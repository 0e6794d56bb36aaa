-- Features that fire but are not live: fewer than 20 contexts or contexts from fewer than 10 documents. They count as not explained.
-- Grain: one row per dict_id, layer, feature.
-- Order: dict_id, layer, feature.
-- Reads: window_counts.
-- Parameters:
--   $dict_id: text = NULL         only this dictionary
--   $min_contexts: integer = 20   contexts a live feature has
--   $min_documents: integer = 10  documents they come from

SELECT dict_id, layer, feature, n_contexts, n_documents, density, max_activation
FROM window_counts
WHERE NOT dead AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
  AND (n_contexts < $min_contexts::INTEGER OR n_documents < $min_documents::INTEGER)
ORDER BY dict_id, layer, feature
