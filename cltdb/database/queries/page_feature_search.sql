-- Features whose explanation, promoted token or firing token (peaks of the strongest windows) contains a text, sorted by one of their numbers.
-- Grain: one row per dict_id, layer, feature.
-- Order: the chosen number, unknown ones last, then dict_id, layer, feature.
-- Reads: best_explanations, dictionaries, features, token_features, vocabulary, windows.
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
    SELECT dict_id, layer, feature, 'explanation' AS place FROM best_explanations
    WHERE coalesce($text::VARCHAR, '') <> '' AND contains(lower(text), lower($text::VARCHAR))
    UNION ALL
    SELECT t.dict_id, t.layer, t.feature, 'promotes'
    FROM token_features AS t
    JOIN dictionaries AS d USING (dict_id)
    JOIN words AS w ON w.model_id = d.model_id AND w.token = t.token
    WHERE t.role = 'promotes'
    UNION ALL
    SELECT c.dict_id, c.layer, c.feature, 'fires on'
    FROM windows AS c
    JOIN dictionaries AS d USING (dict_id)
    JOIN words AS w ON w.model_id = d.model_id AND w.token = c.peak_token
    WHERE c.band = 'top' AND c.rank < 3
), matching AS (
    SELECT dict_id, layer, feature,
           concat_ws(', ', if(bool_or(place = 'explanation'), 'explanation', NULL), if(bool_or(place = 'fires on'), 'fires on', NULL),
                     if(bool_or(place = 'promotes'), 'promotes', NULL)) AS found_in
    FROM hits
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    GROUP BY dict_id, layer, feature
    UNION ALL
    SELECT dict_id, layer, feature, NULL FROM features
    WHERE coalesce($text::VARCHAR, '') = ''
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
), found AS MATERIALIZED (
    SELECT m.dict_id, m.layer, m.feature, m.found_in, b.score, f.density, f.max_activation, f.dead
    FROM matching AS m
    JOIN features AS f USING (dict_id, layer, feature)
    LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
    WHERE $alive::BOOLEAN IS NOT TRUE OR NOT f.dead
), shown AS (
    SELECT *, CASE $sort::VARCHAR WHEN 'score' THEN if(isnan(score), NULL, score)
                             WHEN 'density' THEN if(isnan(density), NULL, density)
                             WHEN 'max_activation' THEN if(isnan(max_activation), NULL, max_activation)
                             WHEN 'layer' THEN -layer END AS place
    FROM found
    ORDER BY place DESC NULLS LAST, dict_id, layer, feature
    LIMIT $limit::BIGINT
)
SELECT dict_id, layer, feature, b.text, s.score, b.explainer, s.density, s.max_activation, s.dead, s.found_in,
       (SELECT count(*) FROM found) AS n_found
FROM shown AS s
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
ORDER BY s.place DESC NULLS LAST, dict_id, layer, feature
