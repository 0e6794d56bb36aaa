-- Features that fire but are not live: fewer than 20 contexts or contexts from fewer than 10 documents. They count as not explained.
-- Grain: one row per dict_id, layer, feature.
-- Order: dict_id, layer, feature.
-- Reads: contexts, features.
-- Parameters:
--   $dict_id: text = NULL         only this dictionary
--   $min_contexts: integer = 20   contexts a live feature has
--   $min_documents: integer = 10  documents they come from

WITH windows AS (
    SELECT dict_id, layer, feature, count(DISTINCT (sequence, position)) AS n_contexts, count(DISTINCT document) AS n_documents
    FROM contexts
    WHERE dict_id = coalesce($dict_id::VARCHAR, dict_id)
    GROUP BY dict_id, layer, feature
)
SELECT f.dict_id, f.layer, f.feature, coalesce(w.n_contexts, 0) AS n_contexts, coalesce(w.n_documents, 0) AS n_documents,
       f.density, f.max_activation
FROM features AS f
LEFT JOIN windows AS w USING (dict_id, layer, feature)
WHERE NOT f.dead AND f.dict_id = coalesce($dict_id::VARCHAR, f.dict_id)
  AND (coalesce(w.n_contexts, 0) < $min_contexts::INTEGER OR coalesce(w.n_documents, 0) < $min_documents::INTEGER)
ORDER BY f.dict_id, f.layer, f.feature
