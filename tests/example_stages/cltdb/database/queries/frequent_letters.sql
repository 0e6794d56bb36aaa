-- With which letters the tokens of a model begin.
-- Grain: one row per letter.
-- Order: most tokens first.
-- Parameters:
--   $model_id  the model
SELECT letter, tokens
FROM letter_counts
WHERE model_id = $model_id
ORDER BY tokens DESC, letter
