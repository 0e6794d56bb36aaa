-- FVU against L0: every evaluated dictionary of a sweep or experiment with what was swept, and whether any other is better in both.
-- Grain: one row per dict_id.
-- Order: sweep or experiment, l0, dict_id.
-- Reads: dictionaries, experiments, metrics, stage_runs.
-- Parameters:
--   $sweep: text = NULL     only this sweep, or this experiment
--   $layer: integer = NULL  of this layer; without it pooled over layers
-- on_frontier: none of these dictionaries that is of the same model and reconstructs the same (MLP outputs, or what an SAE reads besides) is as good
-- in both and better in one.

WITH measured AS (
    SELECT dict_id,
           max(value) FILTER (name = 'l0' AND layer IS NOT DISTINCT FROM $layer::INTEGER) AS l0,
           max(value) FILTER (name = 'fvu' AND layer IS NOT DISTINCT FROM $layer::INTEGER) AS fvu,
           max(value) FILTER (name = 'dead_frac' AND layer IS NOT DISTINCT FROM $layer::INTEGER) AS dead_frac,
           max(value) FILTER (name = 'ce_recovered' AND layer IS NULL) AS ce_recovered
    FROM metrics
    WHERE stage = 'evaluate' AND variant IS NULL AND label IS NULL
    GROUP BY dict_id
    HAVING l0 IS NOT NULL AND fvu IS NOT NULL
), trained AS (
    SELECT key, max_by(seconds, started_at) FILTER (seconds > 0) AS train_seconds
    FROM stage_runs
    WHERE stage = 'train' AND status = 'done'
    GROUP BY key
), placed AS (
    SELECT d.dict_id, coalesce(e.sweep, d.experiment) AS sweep, coalesce(e.experiment, d.experiment) AS experiment,
           d.kind, d.activation, d.n_layers, d.n_features, e.swept, t.train_seconds, d.model_id,
           if(d.kind = 'sae', coalesce(d.reads, 'mlp_output'), 'mlp_output') AS target  -- what it reconstructs
    FROM dictionaries AS d
    LEFT JOIN stage_runs AS r ON r.stage = 'train' AND r.key = d.artifact_key
    LEFT JOIN experiments AS e ON e.experiment = r.experiment AND e.spec_hash = r.spec_hash
    LEFT JOIN trained AS t ON t.key = d.artifact_key
    WHERE $sweep::VARCHAR IS NULL OR $sweep::VARCHAR IN (e.sweep, e.experiment, d.experiment)
    QUALIFY row_number() OVER (PARTITION BY d.dict_id ORDER BY e.sweep NULLS LAST, e.created_at, e.experiment, e.spec_hash) = 1
)
SELECT p.sweep, p.experiment, p.dict_id, p.kind, p.activation, p.n_layers, p.n_features, $layer::INTEGER AS layer,
       m.l0, m.fvu, m.dead_frac, m.ce_recovered, p.train_seconds, p.swept,
       NOT EXISTS (
           FROM measured AS b JOIN placed AS o USING (dict_id)
           WHERE o.model_id IS NOT DISTINCT FROM p.model_id AND o.target = p.target AND b.l0 <= m.l0 AND b.fvu <= m.fvu AND (b.l0 < m.l0 OR b.fvu < m.fvu)
       ) AS on_frontier
FROM placed AS p
JOIN measured AS m USING (dict_id)
ORDER BY p.sweep NULLS LAST, m.l0, p.dict_id
