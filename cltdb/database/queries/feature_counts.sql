-- How many features a dictionary has in each layer: dead, dense, live, explained.
-- Grain: one row per dict_id, layer (layer NULL: all layers).
-- Order: dict_id, layer, all layers first.
-- Reads: best_explanations, window_counts.
-- Parameters:
--   $min_density: number = 0.1  a feature of at least this density counts as dense (0 to 1)
--   $dict_id: text = NULL       only this dictionary
-- live: fires, with at least 20 contexts from at least 10 documents. mean_score: of the best explanations that have one.
-- median_density: of the features that fire.

SELECT dict_id, layer, count(*) AS n_features, count(*) FILTER (f.dead) AS n_dead,
       count(*) FILTER (f.density >= $min_density::DOUBLE) AS n_dense,
       count(*) FILTER (NOT f.dead AND f.n_contexts >= 20 AND f.n_documents >= 10) AS n_live,
       count(b.explainer) AS n_explained, avg(b.score) AS mean_score, median(f.density) FILTER (NOT f.dead) AS median_density
FROM window_counts AS f
LEFT JOIN best_explanations AS b USING (dict_id, layer, feature)
WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY GROUPING SETS ((dict_id), (dict_id, layer))
ORDER BY dict_id, layer NULLS FIRST
