-- The tokens of a graph's prompt as text.
-- Grain: one row per position.
-- Order: position.
-- Reads: graphs, vocabulary.
-- Parameters:
--   $graph_id: text  the graph
-- Example: -p graph_id=capital-of-france-10de5653

WITH g AS (
    SELECT model_id, token_strings, unnest(tokens) AS token, generate_subscripts(tokens, 1) - 1 AS position
    FROM graphs WHERE graph_id = $graph_id::VARCHAR
)
SELECT g.position, g.token, coalesce(v.string, g.token_strings[g.position + 1]) AS string
FROM g
LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = g.token
ORDER BY g.position
