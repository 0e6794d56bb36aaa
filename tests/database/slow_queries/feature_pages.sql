-- Features of a layer with the tokens they promote and suppress as text.
-- Grain: one row per feature.
-- Order: feature.
-- Reads: dictionaries, features, vocabulary.
-- Parameters:
--   $dict_id: text       the dictionary
--   $layer: integer      the layer the features read from
--   $features: integers  their indices in the layer, a list
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p features='[222, 223]'

WITH chosen AS (
    SELECT * FROM features
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER
      AND feature BETWEEN list_min($features::INTEGER[]) AND list_max($features::INTEGER[])
      AND list_contains($features::INTEGER[], feature)
), effects AS (
    SELECT feature, side, token, place
    FROM (
        SELECT feature, 'top' AS side, unnest(top_logits, recursive := true), generate_subscripts(top_logits, 1) AS place FROM chosen
        UNION ALL
        SELECT feature, 'bottom', unnest(bottom_logits, recursive := true), generate_subscripts(bottom_logits, 1) FROM chosen
    )
), decoded AS (
    SELECT e.feature,
           list(coalesce(v.string, '[' || e.token || ']') ORDER BY e.place) FILTER (e.side = 'top') AS promoted,
           list(coalesce(v.string, '[' || e.token || ']') ORDER BY e.place) FILTER (e.side = 'bottom') AS suppressed
    FROM effects AS e
    LEFT JOIN vocabulary AS v
        ON v.model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR) AND v.token = e.token
    GROUP BY e.feature
)
SELECT c.feature, c.density, c.max_activation, coalesce(d.promoted, []) AS promoted, coalesce(d.suppressed, []) AS suppressed
FROM chosen AS c
LEFT JOIN decoded AS d USING (feature)
ORDER BY c.feature
