-- Features whose best explanation, or one of whose promoted tokens, contains the text (upper and lower case alike).
-- Grain: one row per dict_id, layer, feature.
-- Order: explanations that match before promoted tokens that match, then score, highest first, then dict_id, layer, feature.
-- Reads: dictionaries, feature_cards, token_features, vocabulary.
-- Parameters:
--   $text: text                what to look for; it is taken literally
--   $dict_id: text = NULL      only this dictionary
--   $layer: integer = NULL     only this layer
--   $min_score: number = NULL  only explanations with at least this score (0 to 1)
--   $alive: boolean = NULL     true: no dead features
--   $limit: integer = 50       at most this many rows
-- Example: -p text=capital

WITH promoted AS (
    SELECT DISTINCT t.dict_id, t.layer, t.feature
    FROM token_features AS t
    JOIN dictionaries AS d USING (dict_id)
    JOIN vocabulary AS v ON v.model_id = d.model_id AND v.token = t.token
    WHERE t.role = 'promotes' AND $text::VARCHAR <> '' AND contains(lower(v.string), lower($text::VARCHAR))
      AND t.dict_id = coalesce($dict_id::VARCHAR, t.dict_id) AND t.layer = coalesce($layer::INTEGER, t.layer)
)
SELECT c.dict_id, c.layer, c.feature, c.text, c.score, c.explainer, c.density, c.max_activation, c.dead,
       coalesce(contains(lower(c.text), lower($text::VARCHAR)), false) AS matches_text
FROM feature_cards AS c
LEFT JOIN promoted AS p USING (dict_id, layer, feature)
WHERE (matches_text OR p.dict_id IS NOT NULL OR $text::VARCHAR = '')
  AND c.dict_id = coalesce($dict_id::VARCHAR, c.dict_id)
  AND c.layer = coalesce($layer::INTEGER, c.layer)
  AND ($min_score::DOUBLE IS NULL OR c.score >= $min_score::DOUBLE)
  AND ($alive::BOOLEAN IS NOT TRUE OR NOT c.dead)
ORDER BY matches_text DESC, c.score DESC NULLS LAST, c.dict_id, c.layer, c.feature
LIMIT $limit::BIGINT
