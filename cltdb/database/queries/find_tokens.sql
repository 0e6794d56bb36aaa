-- Tokens of a vocabulary that contain a text (upper and lower case alike).
-- Grain: one row per model_id, token.
-- Order: shortest first, then model_id, token.
-- Reads: vocabulary.
-- Parameters:
--   $text: text             what to look for; it is taken literally
--   $model_id: text = NULL  only this model
--   $limit: integer = 50    at most this many rows
-- Example: -p text=capital

SELECT model_id, token, string
FROM vocabulary
WHERE contains(lower(string), lower($text::VARCHAR)) AND model_id = coalesce($model_id::VARCHAR, model_id)
ORDER BY len(string), model_id, token
LIMIT $limit::BIGINT
