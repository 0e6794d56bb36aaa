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

WITH windows AS MATERIALIZED (
    SELECT * FROM contexts
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
      AND ($band::VARCHAR IS NULL OR band = $band::VARCHAR)
), words AS (
    SELECT map(list(token), list(string)) AS of_token FROM vocabulary
    WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR) AND token IN (SELECT unnest(tokens) FROM windows)
)
SELECT w.band, w.rank, w.document, w.sequence, w.start, w.position, w.label, w.tokens,
       list_transform(w.tokens, lambda token: words.of_token[token]) AS strings, w.activations, w.max_activation
FROM windows AS w CROSS JOIN words
ORDER BY w.band <> 'top', len(w.band) DESC, w.band DESC, w.rank
