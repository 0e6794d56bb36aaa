-- Features that belong to a token: those whose strongest windows peak on it, those that peak soon after it, right after it or right before it, or those that promote it.
-- Grain: one row per dict_id, layer, feature, token.
-- Order: weight, highest first, then dict_id, layer, feature, token.
-- Reads: best_explanations, dictionaries, token_features, vocabulary.
-- Parameters:
--   $token: text                           the token; blanks around it and upper and lower case do not count
--   $role: fires_on | follows | promotes | right_after | right_before = fires_on  fires_on: windows of band top peak on it; follows: it stands before their peaks more often than before those of other features; right_after, right_before: it stands directly before or after their peaks; promotes: it is among the tokens the feature promotes most
--   $dict_id: text = NULL                  only this dictionary
--   $layer: integer = NULL                 only this layer
--   $limit: integer = 100                  at most this many rows
-- Example: -p token=Paris
-- weight: for fires_on the share of the feature's windows of band top that peak on it (0 to 1), for follows the share that has it among the eight
-- tokens before the peak (0.5 to 1), for right_after and right_before the share that has it directly before or after the peak (0 to 1), for promotes what the feature adds to its logit.

WITH words AS (
    SELECT d.dict_id, v.token, v.string
    FROM vocabulary AS v
    JOIN dictionaries AS d USING (model_id)
    WHERE trim(lower(v.string)) = trim(lower($token::VARCHAR)) AND ($dict_id::VARCHAR IS NULL OR d.dict_id = $dict_id::VARCHAR)
), found AS (
    SELECT t.dict_id, t.layer, t.feature, t.token, w.string, t.weight
    FROM token_features AS t
    JOIN words AS w USING (dict_id, token)
    WHERE t.role = $role::VARCHAR AND ($layer::INTEGER IS NULL OR t.layer = $layer::INTEGER)
    ORDER BY t.weight DESC, t.dict_id, t.layer, t.feature, t.token
    LIMIT $limit::BIGINT
)
SELECT f.dict_id, f.layer, f.feature, f.token, f.string, f.weight, b.text, b.score
FROM found AS f
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
ORDER BY f.weight DESC, f.dict_id, f.layer, f.feature, f.token
