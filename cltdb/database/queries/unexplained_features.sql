-- Live features without an explanation, the ones that fire most first: what to explain next.
-- Grain: one row per dict_id, layer, feature.
-- Order: density, highest first, then dict_id, layer, feature.
-- Reads: best_explanations, window_counts.
-- Parameters:
--   $min_contexts: integer = 20   contexts a live feature has
--   $min_documents: integer = 10  documents they come from
--   $dict_id: text = NULL         only this dictionary
--   $layer: integer = NULL        only this layer
--   $limit: integer = 200         at most this many rows

SELECT dict_id, layer, feature, density, max_activation, n_contexts, n_documents
FROM window_counts
ANTI JOIN best_explanations USING (dict_id, layer, feature)
WHERE NOT dead AND n_contexts >= $min_contexts::INTEGER AND n_documents >= $min_documents::INTEGER
  AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
ORDER BY density DESC, dict_id, layer, feature
LIMIT $limit::BIGINT
