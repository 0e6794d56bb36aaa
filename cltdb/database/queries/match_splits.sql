-- Features of a dictionary that are several in another: what was split, and what merged, with the explanations of both.
-- Grain: one row per dict_a, dict_b, relation, layer, one, feature.
-- Order: dict_a, dict_b, relation (split first), layer, n (most first), one, is_match (the matched one first), similarity (highest first), feature.
-- Reads: best_explanations, dictionary_matches, feature_matches.
-- Parameters:
--   $dict_a: text = NULL            only with this first dictionary
--   $dict_b: text = NULL            only with this second dictionary
--   $relation: split | merged = NULL  only what became several, or one
--   $layer: integer = NULL          only this layer
--   $limit: integer = 1000          at most this many rows
-- one: the feature that is several in the other dictionary: of relation split it is of dict_a, of merged of dict_b. feature: one of the several, in the
-- other. is_match: whether the two are matched one to one. similarity: what the pairs were chosen by. n: how many the several are.

WITH asked AS MATERIALIZED (
    SELECT *, if(matched_by = 'activations', activation_correlation, decoder_cosine) AS similarity
    FROM feature_matches JOIN (SELECT DISTINCT dict_a, dict_b, matched_by FROM dictionary_matches) USING (dict_a, dict_b)
    WHERE relation IN ('matched', 'split', 'merged')
      AND ($dict_a::VARCHAR IS NULL OR dict_a = $dict_a::VARCHAR) AND ($dict_b::VARCHAR IS NULL OR dict_b = $dict_b::VARCHAR)
      AND ($layer::INTEGER IS NULL OR layer_a = $layer::INTEGER)
), side AS (
    SELECT dict_a, dict_b, 'split' AS kind, dict_a AS dict_one, dict_b AS dict_other, layer_a AS layer, feature_a AS one,
           feature_b AS feature, similarity, relation
    FROM asked WHERE relation IN ('matched', 'split') AND coalesce($relation::VARCHAR, 'split') = 'split'
    UNION ALL
    SELECT dict_a, dict_b, 'merged', dict_b, dict_a, layer_b, feature_b, feature_a, similarity, relation
    FROM asked WHERE relation IN ('matched', 'merged') AND coalesce($relation::VARCHAR, 'merged') = 'merged'
), several AS (
    SELECT *, count(*) OVER (PARTITION BY dict_a, dict_b, kind, layer, one) AS n
    FROM side
    QUALIFY bool_or(relation <> 'matched') OVER (PARTITION BY dict_a, dict_b, kind, layer, one)
)
SELECT s.dict_a, s.dict_b, s.kind AS relation, s.layer, s.one, s.feature, s.relation = 'matched' AS is_match, s.similarity, s.n, e.text, o.text AS other_text
FROM several AS s
LEFT JOIN best_explanations AS e ON e.dict_id = s.dict_one AND e.layer = s.layer AND e.feature = s.one
LEFT JOIN best_explanations AS o ON o.dict_id = s.dict_other AND o.layer = s.layer AND o.feature = s.feature
ORDER BY s.dict_a, s.dict_b, s.kind DESC, s.layer, s.n DESC, s.one, is_match DESC, s.similarity DESC, s.feature
LIMIT $limit::BIGINT
