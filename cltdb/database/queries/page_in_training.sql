-- Trainings whose dictionary is not there yet: how far they are, with the pooled numbers of their last metric rows.
-- Grain: one row per dict_id.
-- Order: dict_id.
-- Reads: dictionaries, metrics, stage_runs.
-- Parameters: none

WITH last_rows AS (
    SELECT dict_id, artifact_key, max(step) AS step,
           max_by(value, step) FILTER (name = 'fvu') AS fvu,
           max_by(value, step) FILTER (name = 'l0') AS l0,
           max_by(value, step) FILTER (name = 'dead_frac') AS dead_frac,
           max_by(value, step) FILTER (name = 'loss') AS loss
    FROM metrics
    WHERE stage = 'train' AND layer IS NULL
    GROUP BY dict_id, artifact_key
), last_runs AS (
    SELECT key, experiment, status, started_at, error
    FROM stage_runs
    WHERE stage = 'train'
    QUALIFY row_number() OVER (PARTITION BY key ORDER BY started_at DESC NULLS LAST, run_id DESC) = 1
)
SELECT m.dict_id, m.artifact_key AS key, r.experiment, r.status, r.started_at, r.error, m.step, m.fvu, m.l0, m.dead_frac, m.loss
FROM last_rows AS m
ANTI JOIN dictionaries AS d USING (dict_id)
LEFT JOIN last_runs AS r ON r.key = m.artifact_key
ORDER BY m.dict_id
