-- What became of one feature in the dictionaries that its own was compared with.
-- Grain: one row per other, other_layer, other_feature, relation.
-- Order: other, is_first (true first), the similarity that pairs were chosen by (highest first), other_layer, other_feature.
-- Reads: best_explanations, dictionary_matches, feature_matches.
-- Parameters:
--   $dict_id: text     the dictionary
--   $layer: integer    the layer the feature reads from
--   $feature: integer  its index in the layer
-- relation: as in table feature_matches, in which the other dictionary is the second where is_first, else the first. Nobody's partner: other_feature NULL.
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=2 -p feature=17

WITH partner AS (
    SELECT dict_b AS other, layer_b AS other_layer, feature_b AS other_feature, true AS is_first, relation,
           decoder_cosine, encoder_cosine, activation_correlation,
           dict_a, dict_b
    FROM feature_matches
    WHERE dict_a = $dict_id::VARCHAR AND layer_a = $layer::INTEGER AND feature_a = $feature::INTEGER
    UNION ALL
    SELECT dict_a, layer_a, feature_a, false, relation, decoder_cosine, encoder_cosine, activation_correlation, dict_a, dict_b
    FROM feature_matches
    WHERE dict_b = $dict_id::VARCHAR AND layer_b = $layer::INTEGER AND feature_b = $feature::INTEGER
)
SELECT p.* EXCLUDE (dict_a, dict_b), e.text
FROM partner AS p
LEFT JOIN (SELECT DISTINCT dict_a, dict_b, matched_by FROM dictionary_matches) AS m USING (dict_a, dict_b)
LEFT JOIN best_explanations AS e ON e.dict_id = p.other AND e.layer = p.other_layer AND e.feature = p.other_feature
ORDER BY p.other, p.is_first DESC, if(m.matched_by = 'activations', p.activation_correlation, p.decoder_cosine) DESC NULLS LAST, p.other_layer, p.other_feature
