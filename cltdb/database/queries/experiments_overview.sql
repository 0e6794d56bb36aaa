-- The last run of every stage of every experiment, with the dictionary it made.
-- Grain: one row per experiment, spec_hash, stage.
-- Order: newest experiment first, then by start of the stage.
-- Reads: dictionaries, experiments, stage_runs.
-- Parameters: none

WITH last_runs AS (
    SELECT * FROM stage_runs
    QUALIFY row_number() OVER (PARTITION BY experiment, spec_hash, stage ORDER BY started_at DESC NULLS LAST, run_id DESC) = 1
), made AS (
    SELECT artifact_key, min(dict_id) AS dict_id FROM dictionaries GROUP BY artifact_key
)
SELECT r.experiment, r.spec_hash, r.stage, r.key, r.status, r.started_at, r.seconds, r.host, r.device, r.error, made.dict_id, e.created_at
FROM last_runs AS r
LEFT JOIN experiments AS e USING (experiment, spec_hash)
LEFT JOIN made ON made.artifact_key = r.key
ORDER BY e.created_at DESC NULLS LAST, r.experiment, r.spec_hash, r.started_at, r.stage
