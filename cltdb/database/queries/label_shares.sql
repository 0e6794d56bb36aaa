-- On which labels of the text (languages, say) one feature fires, counted over all tokens of the harvest.
-- Grain: one row per label.
-- Order: share, highest first, then label.
-- Reads: feature_labels, features.
-- Parameters:
--   $dict_id: text     the dictionary
--   $layer: integer    the layer the feature reads from
--   $feature: integer  its index in the layer
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222
-- label_entropy, label_information_bits, label_information_matched_bits: of the feature as a whole, as in table features.
-- No rows where the feature never fires on text with a label, or where the spec of the harvest names no labels (query label_profile then
-- tells from windows).

SELECT p.label, p.tokens, p.firings, p.mass, p.rate, p.matched_rate, p.share,
       f.label_entropy, f.label_information_bits, f.label_information_matched_bits
FROM feature_labels AS p
JOIN features AS f USING (dict_id, layer, feature)
WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
ORDER BY p.share DESC, p.label
