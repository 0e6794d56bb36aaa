-- Explainers beside each other and beside the baselines: mean score with its interval, on all features of each and on the same
-- features.
-- Grain: one row per dict_id, side, scorer, explainer, judge.
-- Order: dict_id, side, scorer, baselines last, mean score, highest first, explainer, judge.
-- Reads: scores.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
--   $scorer: text = NULL   only this scorer
-- ci_low, ci_high: 95 % interval of the mean over features, cut off at what scores can be. n_shared, mean_shared: of the features that
-- every explainer of this side and scorer has a score for, baselines aside; means of different features say little of explainers. judge:
-- rule, words or language model; the same text may get another score from another judge. NULL in scores of earlier versions.

WITH scored AS (
    SELECT dict_id, side, scorer, explainer, layer, feature, score, detail->>'judge' AS judge FROM scores
    WHERE score IS NOT NULL AND NOT isnan(score)
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($scorer::VARCHAR IS NULL OR scorer = $scorer::VARCHAR)
), own AS (
    FROM scored WHERE NOT starts_with(explainer, 'baseline:')
), explainers AS (
    SELECT dict_id, side, scorer, count(DISTINCT explainer) AS n FROM own GROUP BY dict_id, side, scorer
), shared AS (
    SELECT dict_id, side, scorer, layer, feature, count(*) AS n FROM own GROUP BY dict_id, side, scorer, layer, feature
    HAVING (dict_id, side, scorer, count(*)) IN (FROM explainers)
), means AS (
    SELECT dict_id, side, scorer, explainer, judge, count(*) AS n, avg(score) AS mean_score, 1.96 * stddev_samp(score) / sqrt(count(*)) AS error,
           count(s.n) AS n_shared, avg(score) FILTER (s.n IS NOT NULL) AS mean_shared
    FROM scored
    LEFT JOIN shared AS s USING (dict_id, side, scorer, layer, feature)
    GROUP BY dict_id, side, scorer, explainer, judge
)
SELECT dict_id, side, scorer, explainer, judge, n, mean_score, 
       greatest(mean_score - error, if(scorer = 'simulation', -1, 0)) AS ci_low, least(mean_score + error, 1) AS ci_high, n_shared, mean_shared
FROM means
ORDER BY dict_id, side, scorer, starts_with(explainer, 'baseline:'), mean_score DESC, explainer, judge
