-- The windows of one feature with their tokens as text.
-- Grain: one row per band, rank.
-- Order: band top first, then the quantile bands from high to low; within a band by rank.
-- Reads: contexts, dictionaries, vocabulary.
-- Parameters:
--   $dict_id: text      the dictionary
--   $layer: integer     the layer the feature reads from
--   $feature: integer   its index in the layer
--   $band: text = NULL  only this band
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222

WITH windows AS (
    SELECT * FROM contexts
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
      AND ($band::VARCHAR IS NULL OR band = $band::VARCHAR)
), words AS (
    SELECT token, string FROM vocabulary
    WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR)
), decoded AS (
    SELECT w.band, w.rank, list(words.string ORDER BY w.place) AS strings
    FROM (SELECT band, rank, unnest(tokens) AS token, generate_subscripts(tokens, 1) AS place FROM windows) AS w
    LEFT JOIN words ON words.token = w.token
    GROUP BY w.band, w.rank
)
SELECT w.band, w.rank, w.document, w.sequence, w.start, w.position, w.label, w.tokens, d.strings, w.activations, w.max_activation
FROM windows AS w
LEFT JOIN decoded AS d USING (band, rank)
ORDER BY w.band <> 'top', len(w.band) DESC, w.band DESC, w.rank
