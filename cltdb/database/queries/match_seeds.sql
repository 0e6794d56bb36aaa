-- How much of a dictionary training finds again with another seed: matched shares of the pairs of a sweep that differ in one key alone.
-- Grain: one row per sweep, setting, above.
-- Order: sweep, setting, above.
-- Reads: dictionaries, dictionary_matches, experiments, stage_runs.
-- Parameters:
--   $across: text = seed    the swept key in which the two dictionaries of a pair differ
--   $sweep: text = NULL     only this sweep
--   $layer: integer = NULL  of this layer; without it all layers together
-- setting: the swept values that the two have in common, as JSON. share: mean over pairs of n_matched / n_a, from share_least to share_most; by_chance: of the
-- control. Of each point of a sweep the dictionary of its last training counts. With match.across each setting has pairs; otherwise those with the first point alone.

WITH placed AS (
    SELECT d.dict_id, e.sweep, e.swept,
           coalesce((SELECT json_group_object(key, value) FROM json_each(e.swept) WHERE key <> $across::VARCHAR), '{}') AS setting
    FROM dictionaries AS d
    JOIN stage_runs AS r ON r.stage = 'train' AND r.key = d.artifact_key
    JOIN experiments AS e ON e.experiment = r.experiment AND e.spec_hash = r.spec_hash
    WHERE e.swept IS NOT NULL AND ($sweep::VARCHAR IS NULL OR e.sweep = $sweep::VARCHAR)
    QUALIFY rank() OVER (PARTITION BY e.sweep, e.swept ORDER BY r.started_at DESC, r.run_id DESC) = 1
)
SELECT a.sweep, a.setting, m.above, count(*) AS n_pairs, avg(m.share_a) AS share, min(m.share_a) AS share_least, max(m.share_a) AS share_most,
       avg(m.control_share) AS by_chance, avg(m.highest_a) AS highest, avg(m.control_highest) AS highest_by_chance
FROM dictionary_matches AS m
JOIN placed AS a ON a.dict_id = m.dict_a
JOIN placed AS b ON b.dict_id = m.dict_b AND b.sweep = a.sweep AND b.setting IS NOT DISTINCT FROM a.setting AND b.swept <> a.swept
WHERE m.layer IS NOT DISTINCT FROM $layer::INTEGER
GROUP BY a.sweep, a.setting, m.above
ORDER BY a.sweep, a.setting, m.above
