-- Explanations with their scores, baselines and failures included.
-- Grain: one row per dict_id, layer, feature, side, explainer, scorer (scorer NULL: nothing was scored).
-- Order: dict_id, layer, feature, side, baselines last, explainer, scorer.
-- Reads: explanations, scores.
-- Parameters:
--   $dict_id: text = NULL     only this dictionary
--   $layer: integer = NULL    only this layer
--   $feature: integer = NULL  only this feature of a layer
--   $limit: integer = 200     at most this many rows

SELECT e.dict_id, e.layer, e.feature, e.side, e.explainer, e.text, e.model, e.status, e.error, e.cost_usd,
       s.scorer, s.score, s.n, s.n_failed, s.ci_low, s.ci_high, s.detail->>'judge' AS judge,
       if(s.scorer IS NULL, NULL, coalesce((s.detail->>'chance')::DOUBLE, if(s.scorer = 'detection' OR s.scorer = 'fuzzing', 0.5, NULL))) AS chance
FROM explanations AS e
LEFT JOIN scores AS s USING (dict_id, layer, feature, side, explainer)
WHERE e.dict_id = coalesce($dict_id::VARCHAR, e.dict_id)
  AND e.layer = coalesce($layer::INTEGER, e.layer)
  AND e.feature = coalesce($feature::INTEGER, e.feature)
ORDER BY e.dict_id, e.layer, e.feature, e.side, starts_with(e.explainer, 'baseline:'), e.explainer, s.scorer
LIMIT $limit::BIGINT
