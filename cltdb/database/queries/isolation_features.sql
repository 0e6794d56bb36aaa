-- Features that move most else when they are raised, with the feature that they disturb most.
-- Grain: one row per dict_id, layer, feature, multiple.
-- Order: leakage, highest first, then dict_id, layer, feature, multiple.
-- Reads: best_explanations, isolation.
-- Parameters:
--   $dict_id: text = NULL     only this dictionary
--   $layer: integer = NULL    only this layer
--   $multiple: number = NULL  only this multiple
--   $limit: integer = 100     at most this many rows
-- leakage: of the same and later layers together; of a transcoder of later ones alone, so compare it within one kind. text, most_text: what the two features are said to be.

WITH chosen AS (
    SELECT *, coalesce(leakage_same, 0) + coalesce(leakage_later, 0) AS leakage FROM isolation
    WHERE coalesce(leakage_same, leakage_later) IS NOT NULL
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
      AND ($multiple::DOUBLE IS NULL OR multiple = $multiple::DOUBLE)
    ORDER BY leakage DESC, dict_id, layer, feature, multiple
    LIMIT $limit::BIGINT
)
SELECT c.dict_id, c.layer, c.feature, c.multiple, c.leakage, c.leakage_same, c.leakage_later, c.own_response, c.decoder_overlap, c.kl_nats,
       c.high, c.concept, b.text, c.most_layer, c.most_feature, c.most_change, m.text AS most_text
FROM chosen AS c
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
LEFT JOIN best_explanations AS m ON m.dict_id = c.dict_id AND m.layer = c.most_layer AND m.feature = c.most_feature
ORDER BY c.leakage DESC, c.dict_id, c.layer, c.feature, c.multiple
