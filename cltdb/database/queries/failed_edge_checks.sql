-- Edges whose check by intervention failed: |weight - measured| > tolerance * max(|weight|, tolerance * sum of absolute incoming weights).
-- Grain: one row per graph_id, source_id, target_id.
-- Order: excess over the allowed difference, highest first, then graph_id, source_id, target_id.
-- Reads: edges.
-- Parameters:
--   $tolerance: number = 0.001  relative difference allowed
--   $graph_id: text = NULL      only this graph

WITH e AS (
    SELECT graph_id, source_id, target_id, weight, measured,
           sum(abs(weight)) OVER (PARTITION BY graph_id, target_id) AS incoming
    FROM edges
    WHERE graph_id = coalesce($graph_id::VARCHAR, graph_id)
)
SELECT graph_id, source_id, target_id, weight, measured, abs(weight - measured) AS difference,
       $tolerance::DOUBLE * greatest(abs(weight), $tolerance::DOUBLE * incoming) AS allowed
FROM e
WHERE measured IS NOT NULL AND (difference > allowed OR isnan(measured))
ORDER BY difference / allowed DESC, graph_id, source_id, target_id
