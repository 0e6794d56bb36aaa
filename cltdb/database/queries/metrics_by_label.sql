-- What evaluation measured on the text of each label (of each language, say), all MLPs replaced, beside all text.
-- Grain: one row per dict_id, label, layer.
-- Order: dict_id, label (all text first), layer (pooled first).
-- Reads: metrics.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
-- tokens: of the label; unknown of all text. A label with few tokens has uncertain metrics.

SELECT dict_id, label, layer,
       (max(value) FILTER (name = 'tokens'))::BIGINT AS tokens,
       max(value) FILTER (name = 'fvu') AS fvu,
       max(value) FILTER (name = 'l0') AS l0,
       max(value) FILTER (name = 'ce_original') AS ce_original,
       max(value) FILTER (name = 'ce_replacement') AS ce_replacement,
       max(value) FILTER (name = 'ce_recovered') AS ce_recovered,
       max(value) FILTER (name = 'kl_nats') AS kl_nats,
       max(value) FILTER (name = 'top1_agreement') AS top1_agreement
FROM metrics
WHERE stage = 'evaluate' AND variant IS NULL AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY dict_id, label, layer
ORDER BY dict_id, label NULLS FIRST, layer NULLS FIRST
