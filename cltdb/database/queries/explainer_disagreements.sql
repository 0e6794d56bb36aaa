-- Features that explainers understand differently: their texts score far apart, or no explainer is the best by every scorer.
-- Grain: one row per dict_id, layer, feature, side, scorer.
-- Order: gap, largest first, then dict_id, layer, feature, side, scorer.
-- Reads: explanations, scores.
-- Parameters:
--   $min_gap: number = 0.2  scores of the best and the worst text that count as far apart
--   $dict_id: text = NULL   only this dictionary
--   $layer: integer = NULL  only this layer
--   $scorer: text = NULL    only this scorer's gaps
--   $limit: integer = 100   at most this many rows
-- Example: -p scorer=detection -p min_gap=0.3
-- Baselines never count, and neither does what only one explainer has a score for. best_differs: no explainer has the highest score
-- by each of the scorers. best_judge, worst_judge: rule, words or language model; two judges may differ about the same text.

WITH several AS (  -- where one explainer has all scores, no window is made of them
    SELECT dict_id, side, scorer FROM (
        SELECT DISTINCT dict_id, side, scorer, explainer FROM scores
        WHERE score IS NOT NULL AND NOT isnan(score) AND NOT starts_with(explainer, 'baseline:')
          AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    )
    GROUP BY dict_id, side, scorer
    HAVING count(*) > 1
), judged AS (
    SELECT dict_id, layer, feature, side, scorer, explainer, score, judge,
           score = max(score) OVER (PARTITION BY dict_id, layer, feature, side, scorer) AS is_best
    FROM scores SEMI JOIN several USING (dict_id, side, scorer)
    WHERE score IS NOT NULL AND NOT isnan(score) AND NOT starts_with(explainer, 'baseline:')
      AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    QUALIFY count(*) OVER (PARTITION BY dict_id, layer, feature, side, scorer) > 1
), wins AS (
    SELECT dict_id, layer, feature, side, explainer, count(*) FILTER (is_best) AS n FROM judged
    GROUP BY dict_id, layer, feature, side, explainer
), most_wins AS (
    SELECT dict_id, layer, feature, side, max(n) AS n FROM wins GROUP BY dict_id, layer, feature, side
), gaps AS (
    SELECT dict_id, layer, feature, side, scorer, count(*) AS n_explainers, max(score) - min(score) AS gap,
           first(explainer ORDER BY score DESC, explainer) AS best, max(score) AS best_score,
           first(judge ORDER BY score DESC, explainer) AS best_judge, last(explainer ORDER BY score DESC, explainer) AS worst,
           min(score) AS worst_score, last(judge ORDER BY score DESC, explainer) AS worst_judge
    FROM judged
    GROUP BY dict_id, layer, feature, side, scorer
), chosen AS (
    SELECT g.*, m.n < count(*) OVER (PARTITION BY g.dict_id, g.layer, g.feature, g.side) AS best_differs
    FROM gaps AS g
    JOIN most_wins AS m USING (dict_id, layer, feature, side)
    QUALIFY (g.gap >= $min_gap::DOUBLE OR best_differs) AND ($scorer::VARCHAR IS NULL OR g.scorer = $scorer::VARCHAR)
    ORDER BY g.gap DESC, g.dict_id, g.layer, g.feature, g.side, g.scorer
    LIMIT $limit::BIGINT
)
SELECT c.dict_id, c.layer, c.feature, c.side, c.scorer, c.n_explainers, c.gap, c.best_differs, c.best, c.best_score, c.best_judge,
       b.text AS best_text, c.worst, c.worst_score, c.worst_judge, w.text AS worst_text
FROM chosen AS c
LEFT JOIN explanations AS b
    ON (b.dict_id, b.layer, b.feature, b.side, b.explainer) = (c.dict_id, c.layer, c.feature, c.side, c.best)
LEFT JOIN explanations AS w
    ON (w.dict_id, w.layer, w.feature, w.side, w.explainer) = (c.dict_id, c.layer, c.feature, c.side, c.worst)
ORDER BY c.gap DESC, c.dict_id, c.layer, c.feature, c.side, c.scorer
