-- Explainers beside each other and beside the baselines: mean score with its interval, on all features of each and on the same
-- features.
-- Grain: one row per dict_id, side, scorer, explainer, judge.
-- Order: dict_id, side, scorer, baselines last, mean score, highest first, explainer, judge.
-- Reads: scores.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary
--   $scorer: text = NULL   only this scorer
-- ci_low, ci_high: 95 % interval of the mean over features, Wilson's, where n is that at which a share varies as much as the mean does; so it has a
-- width where all scores are 1, too. NULL of one feature. n_shared, mean_shared: of the features that every explainer of this side and scorer has a
-- score for, baselines aside; means of different features say little of explainers.
-- judge: rule, words or language model; the same text may get another score from another judge. NULL in scores of earlier versions.

WITH kinds AS MATERIALIZED (
    SELECT *, starts_with(explainer, 'baseline:') AS is_baseline, row_number() OVER (ORDER BY dict_id, side, scorer, explainer) AS kind,
           dense_rank() OVER (ORDER BY dict_id, side, scorer) AS family,
           count(*) FILTER (NOT starts_with(explainer, 'baseline:')) OVER (PARTITION BY dict_id, side, scorer) AS n_explainers
    FROM (SELECT DISTINCT dict_id, side, scorer, explainer FROM scores
          WHERE score IS NOT NULL AND NOT isnan(score)
            AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($scorer::VARCHAR IS NULL OR scorer = $scorer::VARCHAR))
), scored AS MATERIALIZED (  -- numbers in place of names, by which DuckDB groups and joins three times faster
    SELECT k.kind, k.is_baseline, k.n_explainers, (k.family << 44) + (s.layer::BIGINT << 32) + s.feature AS place, s.score, s.n AS asked,
           s.judge
    FROM scores AS s JOIN kinds AS k USING (dict_id, side, scorer, explainer)
    WHERE s.score IS NOT NULL AND NOT isnan(s.score)
), shared AS (
    SELECT place FROM scored WHERE n_explainers = 1 AND NOT is_baseline
    UNION ALL
    SELECT place FROM scored WHERE n_explainers > 1 AND NOT is_baseline GROUP BY place HAVING count(*) = max(n_explainers)
), means AS (
    SELECT kind, judge, count(*) AS n, avg(score) AS mean_score, var_pop(score) AS spread, sum(asked)::DOUBLE AS asked,
           count(*) FILTER (is_shared) AS n_shared, avg(score) FILTER (is_shared) AS mean_shared
    FROM (
        SELECT kind, judge, score, asked, true AS is_shared FROM scored WHERE n_explainers = 1 AND NOT is_baseline
        UNION ALL
        SELECT kind, judge, score, asked, h.place IS NOT NULL
        FROM (FROM scored WHERE n_explainers > 1 OR is_baseline) LEFT JOIN shared AS h USING (place)
    )
    GROUP BY kind, judge
), shares AS (  -- of simulation, whose scores are from -1 to 1, as shares of that range
    SELECT *, if(scorer = 'simulation', 2, 1) AS width, (mean_score + width - 1) / width AS share, spread / width ** 2 AS share_spread
    FROM means JOIN kinds USING (kind)
), intervals AS (
    SELECT *, wilson(share, CASE WHEN n < 2 THEN NULL
                                 WHEN share IN (0, 1) THEN n - 1
                                 ELSE least(asked, (n - 1) * share * (1 - share) / nullif(share_spread, 0)) END) AS ends
    FROM shares
)
SELECT dict_id, side, scorer, explainer, judge, n, mean_score,
       ends.low * width - width + 1 AS ci_low, ends.high * width - width + 1 AS ci_high, n_shared, mean_shared
FROM intervals
ORDER BY dict_id, side, scorer, is_baseline, mean_score DESC, explainer, judge
