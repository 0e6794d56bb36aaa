-- Features whose explanation, promoted token or firing token (peaks of the strongest windows) contains a text, sorted by one of their numbers.
-- Grain: one row per dict_id, layer, feature.
-- Order: the chosen number, unknown ones last, then dict_id, layer, feature.
-- Reads: dictionaries, feature_cards, token_features, vocabulary, windows.
-- Parameters:
--   $text: text = NULL                                       what to look for, upper and lower case alike; NULL finds all
--   $dict_id: text = NULL                                    only this dictionary
--   $layer: integer = NULL                                   only this layer
--   $alive: boolean = NULL                                   true: no dead features
--   $sort: score | density | max_activation | layer = score  score, density, max_activation or layer (which goes up)
--   $limit: integer = 200                                    at most this many rows; n_found counts all

WITH words AS (
    SELECT model_id, token FROM vocabulary
    WHERE coalesce($text::VARCHAR, '') <> '' AND contains(lower(string), lower($text::VARCHAR))
), hits AS (
    SELECT t.dict_id, t.layer, t.feature, 'promotes' AS place
    FROM token_features AS t
    JOIN dictionaries AS d USING (dict_id)
    JOIN words AS w ON w.model_id = d.model_id AND w.token = t.token
    WHERE t.role = 'promotes' AND t.dict_id = coalesce($dict_id::VARCHAR, t.dict_id) AND t.layer = coalesce($layer::INTEGER, t.layer)
    UNION
    SELECT c.dict_id, c.layer, c.feature, 'fires on'
    FROM windows AS c
    JOIN dictionaries AS d USING (dict_id)
    JOIN words AS w ON w.model_id = d.model_id AND w.token = c.peak_token
    WHERE c.band = 'top' AND c.rank < 3 AND c.dict_id = coalesce($dict_id::VARCHAR, c.dict_id)
      AND c.layer = coalesce($layer::INTEGER, c.layer)
), by_feature AS (
    SELECT dict_id, layer, feature, string_agg(place, ', ' ORDER BY place) AS places FROM hits GROUP BY ALL
)
SELECT c.dict_id, c.layer, c.feature, c.text, c.score, c.explainer, c.density, c.max_activation, c.dead,
       nullif(concat_ws(', ', CASE WHEN contains(lower(c.text), lower($text::VARCHAR)) THEN 'explanation' END, h.places), '')
           AS found_in,
       count(*) OVER () AS n_found
FROM feature_cards AS c
LEFT JOIN by_feature AS h USING (dict_id, layer, feature)
WHERE (coalesce($text::VARCHAR, '') = '' OR contains(lower(c.text), lower($text::VARCHAR)) OR h.places IS NOT NULL)
  AND c.dict_id = coalesce($dict_id::VARCHAR, c.dict_id)
  AND c.layer = coalesce($layer::INTEGER, c.layer)
  AND ($alive::BOOLEAN IS NOT TRUE OR NOT c.dead)
ORDER BY CASE $sort::VARCHAR WHEN 'score' THEN if(isnan(c.score), NULL, c.score)
                             WHEN 'density' THEN if(isnan(c.density), NULL, c.density)
                             WHEN 'max_activation' THEN if(isnan(c.max_activation), NULL, c.max_activation)
                             WHEN 'layer' THEN -c.layer END DESC NULLS LAST, c.dict_id, c.layer, c.feature
LIMIT $limit::BIGINT
