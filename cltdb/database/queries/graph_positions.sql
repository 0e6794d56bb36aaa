-- What each token of a graph's prompt contributes: influence of the embedding, the features and the errors at its position.
-- Grain: one row per position.
-- Order: position.
-- Reads: graphs, nodes, vocabulary.
-- Parameters:
--   $graph_id: text  the graph
-- Example: -p graph_id=capital-of-france-10de5653

WITH g AS (
    SELECT model_id, tokens, token_strings FROM graphs WHERE graph_id = $graph_id::VARCHAR
), summed AS (
    SELECT position, coalesce(sum(influence) FILTER (kind = 'embedding'), 0) AS embedding_influence,
           coalesce(sum(influence) FILTER (kind = 'feature'), 0) AS feature_influence,
           coalesce(sum(influence) FILTER (kind = 'error'), 0) AS error_influence, count(*) FILTER (kind = 'feature') AS n_features
    FROM nodes
    WHERE graph_id = $graph_id::VARCHAR AND kind <> 'logit'
    GROUP BY position
)
SELECT s.position, coalesce(v.string, g.token_strings[s.position + 1]) AS string, s.embedding_influence, s.feature_influence,
       s.error_influence, s.n_features
FROM summed AS s
CROSS JOIN g
LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = g.tokens[s.position + 1]
ORDER BY s.position
