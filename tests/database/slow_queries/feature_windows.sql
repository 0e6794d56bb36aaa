-- The windows of features of a layer with their tokens as text.
-- Grain: one row per feature, band, rank.
-- Order: feature; band top first, then the quantile bands from high to low; within a band by rank.
-- Reads: contexts, dictionaries, vocabulary.
-- Parameters:
--   $dict_id: text       the dictionary
--   $layer: integer      the layer the features read from
--   $features: integers  their indices in the layer, a list
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p features='[222, 223]'

WITH windows AS (
    SELECT feature, band, rank, position - start AS peak, tokens, activations, max_activation FROM contexts
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER
      AND feature BETWEEN list_min($features::INTEGER[]) AND list_max($features::INTEGER[])
      AND list_contains($features::INTEGER[], feature)
), decoded AS (
    SELECT w.feature, w.band, w.rank, list(coalesce(v.string, '[' || w.token || ']') ORDER BY w.place) AS strings
    FROM (SELECT feature, band, rank, unnest(tokens) AS token, generate_subscripts(tokens, 1) AS place FROM windows) AS w
    LEFT JOIN vocabulary AS v
        ON v.model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR) AND v.token = w.token
    GROUP BY w.feature, w.band, w.rank
)
SELECT w.feature, w.band, w.rank, w.peak, coalesce(d.strings, []) AS strings, w.activations, w.max_activation
FROM windows AS w
LEFT JOIN decoded AS d USING (feature, band, rank)
ORDER BY w.feature, w.band <> 'top', len(w.band) DESC, w.band DESC, w.rank
