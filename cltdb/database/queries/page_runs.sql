-- Every run of every stage, with the dictionary that it made.
-- Grain: one row per run_id.
-- Order: newest spec first, then experiment, spec_hash, start of the run, stage, run_id.
-- Reads: dictionaries, experiments, stage_runs.
-- Parameters:
--   $experiment: text = NULL  only this experiment
-- cached: the artifact was there already, and the run only noted it.

WITH made AS (
    SELECT artifact_key, min(dict_id) AS dict_id FROM dictionaries GROUP BY artifact_key
)
SELECT r.run_id, r.experiment, r.spec_hash, e.sweep, e.swept, e.spec_yaml, e.created_at, r.stage, r.key, r.status,
       coalesce(r.status = 'done' AND r.seconds = 0, false) AS cached, r.started_at, r.seconds, r.host, r.device, r.versions, r.error, made.dict_id
FROM stage_runs AS r
LEFT JOIN experiments AS e USING (experiment, spec_hash)
LEFT JOIN made ON made.artifact_key = r.key
WHERE r.experiment = coalesce($experiment::VARCHAR, r.experiment)
ORDER BY e.created_at DESC NULLS LAST, r.experiment, r.spec_hash, r.started_at, r.stage, r.run_id
