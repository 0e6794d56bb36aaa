-- Features that fire on text of few labels (on one language, say) rather than on all, each with the label it fires on most.
-- Grain: one row per dict_id, layer, feature.
-- Order: information, highest first, then dict_id, layer, feature.
-- Reads: best_explanations, feature_labels, features.
-- Parameters:
--   $dict_id: text = NULL       only this dictionary
--   $label: text = NULL         only features that fire on this label most
--   $min_layer: integer = NULL  layer at least this
--   $max_entropy: number = 0.5  label entropy at most this: 0 is one label alone, 1 all at the same rate
--   $min_firings: integer = 20  firings on text with a label, at least this many
--   $matched: boolean = NULL    true: only features of labels; false: only those of frequent tokens
--   $limit: integer = 100       at most this many rows
-- Example: -p label=fr -p matched=true
-- share: of the label, of the rates on all labels. matched: whether the feature tells anything of the label and keeps at least half of it at
-- equal token frequency; where it tells something and keeps less, it fires on frequent tokens of the label. The firings of all features that are chosen
-- are read only where the first of them do not give enough rows.

WITH chosen AS (
    SELECT dict_id, layer, feature, label_entropy, label_information_bits, label_information_matched_bits,
           label_information_bits > 1e-9 AND label_information_matched_bits >= label_information_bits / 2 AS matched
    FROM features
    WHERE label_entropy <= $max_entropy::DOUBLE AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
      AND ($min_layer::INTEGER IS NULL OR layer >= $min_layer::INTEGER)
      AND ($matched::BOOLEAN IS NULL
           OR (label_information_bits > 1e-9 AND label_information_matched_bits >= label_information_bits / 2) = $matched::BOOLEAN)
), first AS MATERIALIZED (
    FROM chosen ORDER BY label_information_bits DESC, dict_id, layer, feature LIMIT 2000
), of_first AS MATERIALIZED (
    SELECT c.dict_id, c.layer, c.feature, max_by(p.label, (p.share, p.label)) AS label, max(p.share) AS share, sum(p.firings)::BIGINT AS firings,
           any_value(c.label_entropy) AS label_entropy, any_value(c.label_information_bits) AS label_information_bits,
           any_value(c.label_information_matched_bits) AS label_information_matched_bits, any_value(c.matched) AS matched
    FROM first AS c
    JOIN feature_labels AS p USING (dict_id, layer, feature)
    GROUP BY c.dict_id, c.layer, c.feature
    HAVING sum(p.firings) >= $min_firings::BIGINT
       AND ($label::VARCHAR IS NULL OR max_by(p.label, (p.share, p.label)) = $label::VARCHAR)
), rest AS (
    FROM chosen ANTI JOIN first USING (dict_id, layer, feature) WHERE (SELECT count(*) < $limit::BIGINT FROM of_first)
), found AS (
    FROM of_first
    UNION ALL
    SELECT c.dict_id, c.layer, c.feature, max_by(p.label, (p.share, p.label)) AS label, max(p.share) AS share, sum(p.firings)::BIGINT AS firings,
           any_value(c.label_entropy) AS label_entropy, any_value(c.label_information_bits) AS label_information_bits,
           any_value(c.label_information_matched_bits) AS label_information_matched_bits, any_value(c.matched) AS matched
    FROM rest AS c
    JOIN feature_labels AS p USING (dict_id, layer, feature)
    GROUP BY c.dict_id, c.layer, c.feature
    HAVING sum(p.firings) >= $min_firings::BIGINT
       AND ($label::VARCHAR IS NULL OR max_by(p.label, (p.share, p.label)) = $label::VARCHAR)
    ORDER BY label_information_bits DESC, dict_id, layer, feature
    LIMIT $limit::BIGINT
)
SELECT f.dict_id, f.layer, f.feature, f.label, f.share, f.firings, f.label_entropy, f.label_information_bits,
       f.label_information_matched_bits, f.matched, e.text, e.score
FROM found AS f
LEFT JOIN best_explanations AS e USING (dict_id, layer, feature)
ORDER BY f.label_information_bits DESC, f.dict_id, f.layer, f.feature
