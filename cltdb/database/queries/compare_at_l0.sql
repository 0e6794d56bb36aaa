-- Two dictionaries compared at equal L0: each evaluation of the one beside the other's training curve at the step of nearest L0.
-- Grain: one row per layer (NULL pooled).
-- Order: layer, pooled first.
-- Reads: metrics.
-- Parameters:
--   $dict_id: text  the first dictionary
--   $other: text    the second dictionary
-- Example: -p dict_id=quickstart-clt-9e0e491d -p other=clt-vs-plt-kind_plt-plt-0123abcd

WITH points AS (
    SELECT dict_id, stage, step, layer, max(value) FILTER (name = 'l0') AS l0, max(value) FILTER (name = 'fvu') AS fvu
    FROM metrics
    WHERE dict_id IN ($dict_id::VARCHAR, $other::VARCHAR) AND name IN ('l0', 'fvu') AND variant IS NULL AND label IS NULL
    GROUP BY dict_id, stage, step, layer
    HAVING l0 IS NOT NULL AND fvu IS NOT NULL
), first AS (
    SELECT * FROM points WHERE dict_id = $dict_id::VARCHAR AND stage = 'evaluate'
)
SELECT f.layer, f.l0, f.fvu, o.stage AS other_stage, o.step AS other_step, o.l0 AS other_l0, o.fvu AS other_fvu,
       f.fvu - o.fvu AS fvu_difference
FROM first AS f
JOIN points AS o ON o.dict_id = $other::VARCHAR AND o.layer IS NOT DISTINCT FROM f.layer
QUALIFY row_number() OVER (PARTITION BY f.layer ORDER BY abs(o.l0 - f.l0), o.stage, o.step DESC NULLS FIRST) = 1
ORDER BY f.layer NULLS FIRST
