-- How many features a dictionary has in each layer: dead, dense, live, explained.
-- Grain: one row per dict_id, layer (layer NULL: all layers).
-- Order: dict_id, layer, all layers first.
-- Reads: best_explanations, window_counts.
-- Parameters:
--   $min_density: number = 0.1  a feature of at least this density counts as dense (0 to 1)
--   $dict_id: text = NULL       only this dictionary
-- live: fires, with at least 20 contexts from at least 10 documents. mean_score: of the best explanations that have one.
-- median_density: of the features that fire.

WITH counted AS (  -- apart from explanations, each of which is of a feature: to join a million with them takes as long as all else
    SELECT dict_id, layer, count(*) AS n_features, count(*) FILTER (dead) AS n_dead,
           count(*) FILTER (density >= $min_density::DOUBLE AND NOT isnan(density)) AS n_dense,
           count(*) FILTER (NOT dead AND n_contexts >= 20 AND n_documents >= 10) AS n_live,
           median(density) FILTER (NOT dead) AS median_density
    FROM window_counts
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    GROUP BY GROUPING SETS ((dict_id), (dict_id, layer))
), explained AS (
    SELECT dict_id, layer, count(*) AS n_explained, avg(score) AS mean_score
    FROM best_explanations
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
    GROUP BY GROUPING SETS ((dict_id), (dict_id, layer))
)
SELECT c.dict_id, c.layer, c.n_features, c.n_dead, c.n_dense, c.n_live, coalesce(e.n_explained, 0) AS n_explained, e.mean_score, c.median_density
FROM counted AS c
LEFT JOIN explained AS e ON e.dict_id = c.dict_id AND e.layer IS NOT DISTINCT FROM c.layer
ORDER BY c.dict_id, c.layer NULLS FIRST
