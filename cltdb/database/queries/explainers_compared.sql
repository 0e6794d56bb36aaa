-- Explainers beside each other and beside the baselines: mean score with its interval, on all features of each and on the same
-- features.
-- Grain: one row per dict_id, side, scorer, explainer, judge.
-- Order: dict_id, side, scorer, baselines last, mean score, highest first, explainer, judge.
-- Reads: scores.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
--   $scorer: text = NULL   only this scorer
-- ci_low, ci_high: 95 % interval of the mean over features, cut off at what scores can be; NULL of one feature. n_shared, mean_shared: of the
-- features that every explainer of this side and scorer has a score for, baselines aside; means of different features say little of explainers.
-- judge: rule, words or language model; the same text may get another score from another judge. NULL in scores of earlier versions.

WITH kinds AS MATERIALIZED (
    SELECT *, starts_with(explainer, 'baseline:') AS is_baseline, row_number() OVER (ORDER BY dict_id, side, scorer, explainer) AS kind,
           dense_rank() OVER (ORDER BY dict_id, side, scorer) AS family,
           count(*) FILTER (NOT starts_with(explainer, 'baseline:')) OVER (PARTITION BY dict_id, side, scorer) AS n_explainers
    FROM (SELECT DISTINCT dict_id, side, scorer, explainer FROM scores
          WHERE score IS NOT NULL AND NOT isnan(score)
            AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($scorer::VARCHAR IS NULL OR scorer = $scorer::VARCHAR))
), scored AS MATERIALIZED (  -- numbers in place of names, by which DuckDB groups and joins three times faster; JSON, read at half of the cost of all, is
    SELECT k.kind, k.is_baseline, k.n_explainers, (k.family << 44) + (s.layer::BIGINT << 32) + s.feature AS place, s.score,  -- left to other judges
           CASE WHEN contains(s.detail, '"judge": "language model"') THEN 'language model' WHEN contains(s.detail, '"judge": "words"') THEN 'words'
                WHEN contains(s.detail, '"judge": "rule"') THEN 'rule' WHEN contains(s.detail, '"judge"') THEN s.detail->>'judge' END AS judge
    FROM scores AS s JOIN kinds AS k USING (dict_id, side, scorer, explainer)
    WHERE s.score IS NOT NULL AND NOT isnan(s.score)
), shared AS (
    SELECT place FROM scored WHERE n_explainers = 1 AND NOT is_baseline
    UNION ALL
    SELECT place FROM scored WHERE n_explainers > 1 AND NOT is_baseline GROUP BY place HAVING count(*) = max(n_explainers)
), means AS (
    SELECT kind, judge, count(*) AS n, avg(score) AS mean_score, 1.96 * stddev_samp(score) / sqrt(count(*)) AS error,
           count(*) FILTER (is_shared) AS n_shared, avg(score) FILTER (is_shared) AS mean_shared
    FROM (
        SELECT kind, judge, score, true AS is_shared FROM scored WHERE n_explainers = 1 AND NOT is_baseline
        UNION ALL
        SELECT kind, judge, score, h.place IS NOT NULL
        FROM (FROM scored WHERE n_explainers > 1 OR is_baseline) LEFT JOIN shared AS h USING (place)
    )
    GROUP BY kind, judge
)
SELECT dict_id, side, scorer, explainer, judge, n, mean_score,
       if(n > 1, greatest(mean_score - error, if(scorer = 'simulation', -1, 0)), NULL) AS ci_low,
       if(n > 1, least(mean_score + error, 1), NULL) AS ci_high, n_shared, mean_shared
FROM means JOIN kinds USING (kind)
ORDER BY dict_id, side, scorer, is_baseline, mean_score DESC, explainer, judge
