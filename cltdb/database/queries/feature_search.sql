-- Features whose best explanation, or one of whose promoted tokens, contains the text (upper and lower case alike).
-- Grain: one row per dict_id, layer, feature.
-- Order: explanations that match before promoted tokens that match, then score, highest first, then dict_id, layer, feature.
-- Reads: best_explanations, dictionaries, features, token_features, vocabulary.
-- Parameters:
--   $text: text                what to look for; it is taken literally
--   $dict_id: text = NULL      only this dictionary
--   $layer: integer = NULL     only this layer
--   $min_score: number = NULL  only explanations with at least this score (0 to 1)
--   $alive: boolean = NULL     true: no dead features
--   $limit: integer = 50       at most this many rows
-- Example: -p text=capital

WITH hits AS (
    SELECT dict_id, layer, feature, true AS matches_text FROM best_explanations WHERE contains(lower(text), lower($text::VARCHAR))
    UNION ALL
    SELECT t.dict_id, t.layer, t.feature, false
    FROM token_features AS t
    JOIN dictionaries AS d USING (dict_id)
    JOIN vocabulary AS v ON v.model_id = d.model_id AND v.token = t.token
    WHERE t.role = 'promotes' AND $text::VARCHAR <> '' AND contains(lower(v.string), lower($text::VARCHAR))
    UNION ALL
    SELECT dict_id, layer, feature, false FROM features WHERE $text::VARCHAR = ''
), matching AS (
    SELECT dict_id, layer, feature, bool_or(matches_text) AS matches_text
    FROM hits
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    GROUP BY dict_id, layer, feature
), found AS (
    SELECT m.dict_id, m.layer, m.feature, m.matches_text, b.score, f.density, f.max_activation, f.dead
    FROM matching AS m
    JOIN features AS f USING (dict_id, layer, feature)
    LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
    WHERE ($min_score::DOUBLE IS NULL OR b.score >= $min_score::DOUBLE) AND ($alive::BOOLEAN IS NOT TRUE OR NOT f.dead)
    ORDER BY m.matches_text DESC, b.score DESC NULLS LAST, m.dict_id, m.layer, m.feature
    LIMIT $limit::BIGINT
)
SELECT dict_id, layer, feature, b.text, f.score, b.explainer, f.density, f.max_activation, f.dead, f.matches_text
FROM found AS f
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
ORDER BY f.matches_text DESC, f.score DESC NULLS LAST, dict_id, layer, feature
