-- Explainers beside each other and beside the baselines: mean score with its interval, on all features of each and on the same
-- features.
-- Grain: one row per dict_id, side, scorer, explainer.
-- Order: dict_id, side, scorer, baselines last, mean score, highest first, explainer.
-- Reads: scores.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
--   $scorer: text = NULL   only this scorer
-- ci_low, ci_high: 95 % interval of the mean over features. n_shared, mean_shared: of the features that every explainer of this
-- side and scorer has a score for, baselines aside; means of different features say little of explainers.

WITH scored AS (
    SELECT dict_id, side, scorer, explainer, layer, feature, score, starts_with(explainer, 'baseline:') AS is_baseline
    FROM scores
    WHERE score IS NOT NULL AND NOT isnan(score)
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($scorer::VARCHAR IS NULL OR scorer = $scorer::VARCHAR)
), counted AS (
    SELECT *, count(DISTINCT explainer) FILTER (NOT is_baseline) OVER (PARTITION BY dict_id, side, scorer) AS n_explainers,
           count(*) FILTER (NOT is_baseline) OVER (PARTITION BY dict_id, side, scorer, layer, feature) AS n_here
    FROM scored
), means AS (
    SELECT dict_id, side, scorer, explainer, is_baseline, count(*) AS n, avg(score ORDER BY layer, feature) AS mean_score,
           1.96 * stddev_samp(score ORDER BY layer, feature) / sqrt(count(*)) AS error, count(*) FILTER (n_here = n_explainers) AS n_shared,
           avg(score ORDER BY layer, feature) FILTER (n_here = n_explainers) AS mean_shared
    FROM counted
    GROUP BY dict_id, side, scorer, explainer, is_baseline
)
SELECT dict_id, side, scorer, explainer, n, mean_score, mean_score - error AS ci_low, mean_score + error AS ci_high, n_shared, mean_shared
FROM means
ORDER BY dict_id, side, scorer, is_baseline, mean_score DESC, explainer
