-- With which letters the tokens of a model begin.
-- Grain: one row per letter.
-- Order: most tokens first.
-- Reads: letter_counts.
-- Parameters:
--   $model_id: text  the model
SELECT letter, tokens
FROM letter_counts
WHERE model_id = $model_id::VARCHAR
ORDER BY tokens DESC, letter
