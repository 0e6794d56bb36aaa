-- What evaluation measured with some of the MLPs replaced, beside zero and mean ablation of the same ones.
-- Grain: one row per dict_id, variant, layer.
-- Order: dict_id, variant (all MLPs first), layer.
-- Reads: metrics.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary

SELECT dict_id, variant, layer,
       max(value) FILTER (name = 'ce_original') AS ce_original,
       max(value) FILTER (name = 'ce_replacement') AS ce_replacement,
       max(value) FILTER (name = 'ce_zero') AS ce_zero,
       max(value) FILTER (name = 'ce_mean') AS ce_mean,
       max(value) FILTER (name = 'ce_recovered') AS ce_recovered,
       max(value) FILTER (name = 'kl_nats') AS kl_nats,
       max(value) FILTER (name = 'top1_agreement') AS top1_agreement
FROM metrics
WHERE stage = 'evaluate' AND label IS NULL AND (variant IS NOT NULL OR layer IS NULL)
  AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY dict_id, variant, layer
ORDER BY dict_id, variant NULLS FIRST, layer NULLS FIRST
