-- How good the graphs of each dictionary are: their scores, paths and agreement with ablations.
-- Grain: one row per dict_id.
-- Order: mean completeness score, highest first, then dict_id.
-- Reads: graphs.
-- Parameters: none
-- Means over graphs; n_ablated: graphs of which ablation_spearman is known.

SELECT dict_id, count(*) AS n_graphs, avg(replacement_score) AS mean_replacement_score, avg(completeness_score) AS mean_completeness_score,
       min(completeness_score) AS min_completeness_score, avg(error_share) AS mean_error_share, avg(mean_path_length) AS mean_path_length,
       avg(ablation_spearman) AS mean_ablation_spearman, count(ablation_spearman) AS n_ablated, max(max_abs_error) AS max_abs_error,
       avg(n_nodes) AS mean_n_nodes, sum(seconds) AS seconds
FROM graphs
GROUP BY dict_id
ORDER BY mean_completeness_score DESC NULLS LAST, dict_id
