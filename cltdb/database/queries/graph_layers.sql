-- What each layer contributes to a graph: influence of its features and of its error nodes.
-- Grain: one row per layer.
-- Order: layer.
-- Reads: nodes.
-- Parameters:
--   $graph_id: text  the graph
-- Example: -p graph_id=capital-of-france-10de5653
-- error_frac: share of the errors in the influence of the layer's nodes (0 to 1), in the unpruned graph.

SELECT layer, count(*) FILTER (kind = 'feature') AS n_features, count(*) FILTER (kind = 'feature' AND kept) AS n_kept_features,
       coalesce(sum(influence) FILTER (kind = 'feature'), 0) AS feature_influence,
       coalesce(sum(influence) FILTER (kind = 'error'), 0) AS error_influence,
       error_influence / nullif(feature_influence + error_influence, 0) AS error_frac
FROM nodes
WHERE graph_id = $graph_id::VARCHAR AND kind IN ('feature', 'error')
GROUP BY layer
ORDER BY layer
