-- Some features, of any dictionaries, with their numbers and best explanation.
-- Grain: one row per dict_id, layer, feature: of those that are named, those that there are.
-- Order: dict_id, layer, feature.
-- Reads: best_explanations, features.
-- Parameters:
--   $dict_ids: texts     the dictionary of each
--   $layers: integers    the layer of each
--   $features: integers  the index of each in its layer
-- Example: -p 'dict_ids=["quickstart-clt-9e0e491d","quickstart-clt-9e0e491d"]' -p layers=[0,2] -p features=[222,126]

WITH named AS MATERIALIZED (
    SELECT DISTINCT unnest($dict_ids::VARCHAR[]) AS dict_id, unnest($layers::INTEGER[]) AS layer, unnest($features::INTEGER[]) AS feature
)
SELECT f.dict_id, f.layer, f.feature, b.text, b.score, b.explainer, f.density, f.max_activation, f.dead
FROM (FROM features WHERE feature IN (SELECT feature FROM named)) AS f
SEMI JOIN named USING (dict_id, layer, feature)
LEFT JOIN (FROM best_explanations WHERE feature IN (SELECT feature FROM named)) AS b USING (dict_id, layer, feature)
ORDER BY f.dict_id, f.layer, f.feature
