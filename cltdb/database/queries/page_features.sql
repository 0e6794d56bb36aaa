-- A part of the features of a dictionary, sorted by one of their numbers or their explanation.
-- Grain: one row per layer, feature.
-- Order: what $sort names, in the direction of $ascending, unknown ones last, then layer, feature.
-- Reads: best_explanations, dictionaries, features, vocabulary.
-- Parameters:
--   $dict_id: text                                                              the dictionary
--   $alive: boolean = NULL                                                      true: no dead features
--   $sort: score | density | max_activation | text | layer | feature = score    what they are sorted by
--   $ascending: boolean = false                                                 the lowest first
--   $about: text = NULL                                                         the explanation or an own label contains this text, in any case
--   $own: texts = NULL                                                          own labels, which stand before explanations, such as ["0:7 capitals"]
--   $min_layer: number = NULL                                                   layer at least this
--   $max_layer: number = NULL                                                   layer at most this
--   $min_feature: number = NULL                                                 index in the layer at least this
--   $max_feature: number = NULL                                                 index in the layer at most this
--   $min_score: number = NULL                                                   score at least this
--   $max_score: number = NULL                                                   score at most this
--   $min_density: number = NULL                                                 density at least this
--   $max_density: number = NULL                                                 density at most this
--   $min_max_activation: number = NULL                                          largest activation at least this
--   $max_max_activation: number = NULL                                          largest activation at most this
--   $offset: integer = 0                                                        leaves out so many of the first rows
--   $limit: integer = 200                                                       at most this many rows
-- Example: -p dict_id=quickstart-clt-9e0e491d -p sort=density -p min_score=0.8
-- promotes: the three tokens whose logits the feature raises most, as text. n_features: how many features there are in all, of which these are a part.

WITH own AS (
    SELECT split_part(one, ':', 1)::INTEGER AS layer, split_part(split_part(one, ' ', 1), ':', 2)::INTEGER AS feature,
           one[position(' ' IN one) + 1:] AS label
    FROM (SELECT unnest($own::VARCHAR[]) AS one)
), explained AS (  -- empty where no row depends on it
    SELECT layer, feature, text, score FROM best_explanations
    WHERE dict_id = $dict_id::VARCHAR
      AND ($sort::VARCHAR IN ('score', 'text') OR $about::VARCHAR IS NOT NULL OR $min_score::DOUBLE IS NOT NULL OR $max_score::DOUBLE IS NOT NULL)
), chosen AS (
    SELECT f.layer, f.feature, f.density, f.max_activation, f.dead,
           CASE $sort::VARCHAR WHEN 'score' THEN e.score WHEN 'density' THEN f.density WHEN 'max_activation' THEN f.max_activation
                               WHEN 'layer' THEN f.layer WHEN 'feature' THEN f.feature END AS number,
           CASE WHEN $sort::VARCHAR = 'text' THEN coalesce(lower(o.label || ' · ' || coalesce(e.text, '')), lower(e.text)) END AS words
    FROM features AS f LEFT JOIN explained AS e USING (layer, feature) LEFT JOIN own AS o USING (layer, feature)
    WHERE f.dict_id = $dict_id::VARCHAR AND ($alive::BOOLEAN IS NOT TRUE OR NOT f.dead)
      AND ($about::VARCHAR IS NULL OR (f.layer, f.feature) IN (
          SELECT (layer, feature) FROM explained WHERE contains(lower(text), lower($about::VARCHAR))
          UNION ALL SELECT (layer, feature) FROM own WHERE contains(lower(label), lower($about::VARCHAR))
      ))
      AND ($min_layer::DOUBLE IS NULL OR f.layer >= $min_layer::DOUBLE) AND ($max_layer::DOUBLE IS NULL OR f.layer <= $max_layer::DOUBLE)
      AND ($min_feature::DOUBLE IS NULL OR f.feature >= $min_feature::DOUBLE) AND ($max_feature::DOUBLE IS NULL OR f.feature <= $max_feature::DOUBLE)
      AND ($min_score::DOUBLE IS NULL OR e.score >= $min_score::DOUBLE AND NOT isnan(e.score)) AND ($max_score::DOUBLE IS NULL OR e.score <= $max_score::DOUBLE)
      AND ($min_density::DOUBLE IS NULL OR f.density >= $min_density::DOUBLE AND NOT isnan(f.density)) AND ($max_density::DOUBLE IS NULL OR f.density <= $max_density::DOUBLE)
      AND ($min_max_activation::DOUBLE IS NULL OR f.max_activation >= $min_max_activation::DOUBLE AND NOT isnan(f.max_activation))
      AND ($max_max_activation::DOUBLE IS NULL OR f.max_activation <= $max_max_activation::DOUBLE)
), part AS MATERIALIZED (
    SELECT * REPLACE (if(isnan(number), NULL, number) * if($ascending::BOOLEAN, 1, -1) AS number) FROM chosen
    ORDER BY number NULLS LAST, if($ascending::BOOLEAN, words, NULL) NULLS LAST, if($ascending::BOOLEAN, NULL, words) DESC NULLS LAST, layer, feature
    LIMIT $limit::BIGINT OFFSET $offset::BIGINT
), promoted AS (
    SELECT top.layer, top.feature, list(v.string ORDER BY top.place) AS tokens
    FROM (
        SELECT f.layer, f.feature, unnest(f.top_logits[:3]).token AS token, generate_subscripts(f.top_logits[:3], 1) AS place
        FROM (FROM features WHERE dict_id = $dict_id::VARCHAR AND feature IN (SELECT feature FROM part)) AS f SEMI JOIN part USING (layer, feature)
    ) AS top
    JOIN vocabulary AS v ON v.model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR) AND v.token = top.token
    GROUP BY top.layer, top.feature
)
SELECT $dict_id::VARCHAR AS dict_id, p.layer, p.feature, b.text, b.score, b.explainer, p.density, p.max_activation, p.dead, t.tokens AS promotes,
       (SELECT count(*) FROM chosen) AS n_features
FROM part AS p
LEFT JOIN (FROM best_explanations WHERE dict_id = $dict_id::VARCHAR AND feature IN (SELECT feature FROM part)) AS b USING (layer, feature)
LEFT JOIN promoted AS t USING (layer, feature)
ORDER BY p.number NULLS LAST, if($ascending::BOOLEAN, p.words, NULL) NULLS LAST, if($ascending::BOOLEAN, NULL, p.words) DESC NULLS LAST, p.layer, p.feature
