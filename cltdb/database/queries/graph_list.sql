-- All graphs with their likeliest logit.
-- Grain: one row per graph_id.
-- Order: graph_id.
-- Reads: graphs, nodes, vocabulary.
-- Parameters:
--   $dict_id: text = NULL  only graphs of this dictionary

WITH top_logit AS (
    SELECT graph_id, token, label, probability FROM nodes WHERE kind = 'logit'
    QUALIFY row_number() OVER (PARTITION BY graph_id ORDER BY node_id) = 1
)
SELECT g.graph_id, g.dict_id, g.model_id, g.prompt_id, g.prompt, g.tokens, g.target, g.foil,
       coalesce(v.string, t.label) AS top_logit, t.probability AS top_probability, g.n_nodes, g.n_edges, g.n_features_active,
       g.replacement_score, g.completeness_score, g.pruned_replacement_score, g.pruned_completeness_score,
       g.error_share, g.mean_path_length, g.n_ablations, g.ablation_spearman,
       g.node_threshold, g.edge_threshold, g.total_influence, g.max_abs_error, g.seconds
FROM graphs AS g
LEFT JOIN top_logit AS t USING (graph_id)
LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = t.token
WHERE $dict_id::VARCHAR IS NULL OR g.dict_id = $dict_id::VARCHAR
ORDER BY g.graph_id
