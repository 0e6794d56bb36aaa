-- What else moved when a feature was raised, and whether its fact followed it.
-- Grain: one row per multiple.
-- Order: multiple.
-- Reads: best_explanations, isolation.
-- Parameters:
--   $dict_id: text      the dictionary
--   $layer: integer     the layer the feature reads from
--   $feature: integer   its index in the layer
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=2 -p feature=126
-- Columns as of table isolation. most_text: what the feature that it disturbs most is said to be.

SELECT i.multiple, i.high, i.n_prompts, i.leakage_same, i.leakage_later, i.own_response, i.most_layer, i.most_feature, i.most_change, b.text AS most_text,
       i.n_unrelated, i.kl_nats, i.concept, i.n_drop, i.success_drop, i.n_include, i.success_include
FROM isolation AS i
LEFT JOIN best_explanations AS b ON b.dict_id = i.dict_id AND b.layer = i.most_layer AND b.feature = i.most_feature
WHERE i.dict_id = $dict_id::VARCHAR AND i.layer = $layer::INTEGER AND i.feature = $feature::INTEGER
ORDER BY i.multiple
