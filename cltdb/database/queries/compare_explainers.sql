-- Two explainers side by side: the scores of their explanations of the same features.
-- Grain: one row per dict_id, side, scorer.
-- Order: dict_id, side, scorer.
-- Reads: scores.
-- Parameters:
--   $explainer: text       the first explainer
--   $other: text           the second explainer
--   $dict_id: text = NULL  only this dictionary
-- Example: -p explainer=llm -p other=rules
-- Only features that both explained and that have both scores. mean_difference: first less second; standard_error: of that mean
-- over features.

SELECT a.dict_id, a.side, a.scorer, count(*) AS n_features, avg(a.score) AS mean_score, avg(b.score) AS other_mean_score,
       avg(a.score - b.score) AS mean_difference, count(*) FILTER (a.score > b.score) AS n_better,
       count(*) FILTER (a.score < b.score) AS n_worse, stddev_samp(a.score - b.score) / sqrt(count(*)) AS standard_error
FROM scores AS a
JOIN scores AS b USING (dict_id, layer, feature, side, scorer)
WHERE a.explainer = $explainer::VARCHAR AND b.explainer = $other::VARCHAR
  AND a.score IS NOT NULL AND NOT isnan(a.score) AND b.score IS NOT NULL AND NOT isnan(b.score)
  AND ($dict_id::VARCHAR IS NULL OR a.dict_id = $dict_id::VARCHAR)
GROUP BY a.dict_id, a.side, a.scorer
ORDER BY a.dict_id, a.side, a.scorer
