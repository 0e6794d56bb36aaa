-- Every spec that was run, the newest text of an experiment first: what `cltdb run` can go on with.
-- Grain: one row per experiment, spec_hash.
-- Order: newest first, then experiment, spec_hash.
-- Reads: experiments.
-- Parameters:
--   $limit: integer = 200  at most this many rows

SELECT experiment, spec_hash, spec_yaml, created_at
FROM experiments
WHERE spec_yaml IS NOT NULL
ORDER BY created_at DESC NULLS LAST, experiment, spec_hash
LIMIT $limit::BIGINT
