-- Coverage and scores of explanations, explainers and baselines side by side.
-- Grain: one row per dict_id, side, explainer, scorer (scorer NULL: nothing was scored).
-- Order: dict_id, side, baselines last, explainer, scorer.
-- Reads: explanations, features, scores.
-- Parameters:
--   $dict_id: text = NULL     only this dictionary
--   $threshold: number = 0.8  a score of at least this counts as good

WITH alive AS (
    SELECT dict_id, count(*) AS n_firing FROM features WHERE NOT dead GROUP BY dict_id
), written AS (
    SELECT dict_id, side, explainer, count(*) AS n_explanations, count(*) FILTER (status = 'ok') AS n_ok,
           count(*) FILTER (status = 'failed') AS n_failed, count(*) FILTER (status = 'too_few_contexts') AS n_too_few,
           sum(cost_usd) AS cost_usd
    FROM explanations
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    GROUP BY dict_id, side, explainer
), scored AS (
    SELECT dict_id, side, explainer, scorer, count(score) AS n_scored, avg(score) AS mean_score, median(score) AS median_score,
           count(*) FILTER (score >= $threshold::DOUBLE) AS n_good, sum(n_failed) AS n_failed_windows
    FROM (SELECT * REPLACE (nullif(score, 'nan') AS score) FROM scores WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR))
    GROUP BY dict_id, side, explainer, scorer
)
SELECT dict_id, side, explainer, s.scorer, a.n_firing, w.n_explanations, w.n_ok, w.n_failed, w.n_too_few, s.n_scored, s.mean_score,
       s.median_score, s.n_good, s.n_good / nullif(a.n_firing, 0) AS good_frac, s.n_failed_windows, w.cost_usd
FROM written AS w
FULL JOIN scored AS s USING (dict_id, side, explainer)
LEFT JOIN alive AS a USING (dict_id)
ORDER BY dict_id, side, starts_with(explainer, 'baseline:'), explainer, scorer
