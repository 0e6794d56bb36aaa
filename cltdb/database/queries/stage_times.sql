-- How long stages took and how often they failed.
-- Grain: one row per experiment, stage.
-- Order: experiment, seconds, highest first, stage.
-- Reads: stage_runs.
-- Parameters:
--   $experiment: text = NULL  only this experiment
-- Wall-clock seconds, failed runs included. A run of 0 s found its artifact made already: n_cached.

SELECT experiment, stage, count(*) FILTER (status = 'done' AND seconds > 0) AS n_runs, count(*) FILTER (seconds = 0) AS n_cached,
       count(*) FILTER (status IN ('failed', 'killed')) AS n_failed, coalesce(sum(seconds), 0) AS seconds,
       max(seconds) AS longest_seconds, max(started_at) AS last_started_at, list(DISTINCT device ORDER BY device) AS devices
FROM stage_runs
WHERE experiment = coalesce($experiment::VARCHAR, experiment)
GROUP BY experiment, stage
ORDER BY experiment, seconds DESC, stage
