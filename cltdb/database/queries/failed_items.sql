-- What failed and why: explanations, scores, runs of stages.
-- Grain: one row per failed explanation, score or run.
-- Order: kind, then dict_id or experiment, layer, feature, name, run_id.
-- Reads: explanations, scores, stage_runs.
-- Parameters:
--   $kind: explanation | score | stage_run = NULL  only these
--   $dict_id: text = NULL                          only this dictionary
--   $limit: integer = 1000                         at most this many rows
-- name: explainer, explainer and scorer, or experiment and stage. n_failed: windows of a score that have no usable judgement.
-- Features with too few windows to be explained did not fail: named query too_few_windows lists them. Runs belong to no
-- dictionary; with dict_id none are listed.

SELECT kind, dict_id, layer, feature, name, status, n_failed, reason, run_id
FROM (
    SELECT 'explanation' AS kind, dict_id, layer, feature, explainer AS name, status, NULL::INTEGER AS n_failed, error AS reason,
           NULL AS run_id
    FROM explanations
    WHERE status IN ('failed', 'skipped_budget')
    UNION ALL
    SELECT 'score', dict_id, layer, feature, explainer || ' ' || scorer, if(score IS NULL, 'no score', 'windows failed'), n_failed,
           detail->>'error', NULL
    FROM scores
    WHERE n_failed > 0 OR score IS NULL
    UNION ALL
    SELECT 'stage_run', NULL, NULL, NULL, experiment || ' ' || stage, status, NULL, error, run_id
    FROM stage_runs
    WHERE status IN ('failed', 'killed') AND $dict_id::VARCHAR IS NULL
)
WHERE kind = coalesce($kind::VARCHAR, kind) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
ORDER BY kind, dict_id, layer, feature, name, run_id
LIMIT $limit::BIGINT
