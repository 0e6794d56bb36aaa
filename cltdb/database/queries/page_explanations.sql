-- Explanations with their scores, baselines and failures included.
-- Grain: one row per dict_id, layer, feature, side, explainer, scorer (scorer NULL: nothing was scored).
-- Order: dict_id, layer, feature, side, baselines last, explainer, scorer.
-- Reads: explanations, scores.
-- Parameters:
--   $dict_id: text = NULL     only this dictionary
--   $layer: integer = NULL    only this layer
--   $feature: integer = NULL  only this feature of a layer
--   $limit: integer = 200     at most this many rows
-- chance: the score of guessing; NULL where that is not known.

WITH chosen AS (
    SELECT * FROM explanations
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
      AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
      AND ($feature::INTEGER IS NULL OR feature = $feature::INTEGER)
    ORDER BY dict_id, layer, feature, side, starts_with(explainer, 'baseline:'), explainer
    LIMIT $limit::BIGINT
)
SELECT e.dict_id, e.layer, e.feature, e.side, e.explainer, e.text, e.model, e.status, e.error, e.cost_usd,
       s.scorer, s.score, s.n, s.n_failed, s.ci_low, s.ci_high, s.judge,
       coalesce((s.detail->>'chance')::DOUBLE, CASE WHEN s.scorer IN ('detection', 'fuzzing') THEN 0.5 END) AS chance
FROM chosen AS e
LEFT JOIN scores AS s USING (dict_id, layer, feature, side, explainer)
ORDER BY e.dict_id, e.layer, e.feature, e.side, starts_with(e.explainer, 'baseline:'), e.explainer, s.scorer
LIMIT $limit::BIGINT
