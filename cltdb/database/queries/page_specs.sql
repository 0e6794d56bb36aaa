-- The spec that made each dictionary, the newest where there are several: what `cltdb attribute` can be run with.
-- Grain: one row per dict_id.
-- Order: newest spec first, then dict_id.
-- Reads: dictionaries, experiments, stage_runs.
-- Parameters:
--   $dict_id: text = NULL  only this dictionary

SELECT d.dict_id, e.experiment, e.spec_hash, e.spec_yaml, e.created_at
FROM dictionaries AS d
JOIN stage_runs AS r ON r.key = d.artifact_key AND r.stage = 'train' AND r.status = 'done'
JOIN experiments AS e ON e.experiment = r.experiment AND e.spec_hash = r.spec_hash
WHERE ($dict_id::VARCHAR IS NULL OR d.dict_id = $dict_id::VARCHAR)
QUALIFY row_number() OVER (PARTITION BY d.dict_id ORDER BY e.created_at DESC NULLS LAST, e.spec_hash) = 1
ORDER BY e.created_at DESC NULLS LAST, d.dict_id
