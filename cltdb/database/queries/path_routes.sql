-- What the steps of a path go through: the residual stream or attention heads, with the factor of the prompt and that of the weights.
-- Grain: one row per step, via, source_position.
-- Order: step, absolute weight, largest first, then via, source_position.
-- Reads: graphs, nodes, path_steps, vocabulary.
-- Parameters:
--   $graph_id: text        the graph
--   $path_id: integer = 0  the path, as query input_paths numbers them
-- Example: -p graph_id=capital-of-france-10de5653 -p path_id=3
-- weight: input_factor times weight_factor. string: the token at the position that the last head reads.

WITH names AS (
    SELECT n.node_id, CASE n.kind
        WHEN 'feature' THEN format('{}:{}@{}', n.layer, n.feature, n.position)
        WHEN 'error' THEN format('error {}@{}', n.layer, n.position)
        ELSE format('{}@{}', coalesce(v.string, nullif(n.label, ''), n.token::VARCHAR, 'direction'), n.position) END AS name
    FROM nodes AS n JOIN graphs AS g USING (graph_id) LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = n.token
    WHERE n.graph_id = $graph_id::VARCHAR
)
SELECT p.step, p.source_id, s.name AS source, p.target_id, t.name AS target, p.via, p.head, p.source_position, v.string,
       p.input_factor * p.weight_factor AS weight, p.input_factor, p.weight_factor
FROM path_steps AS p
JOIN names AS s ON s.node_id = p.source_id
JOIN names AS t ON t.node_id = p.target_id
JOIN graphs AS g ON g.graph_id = p.graph_id
LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = g.tokens[p.source_position + 1]
WHERE p.graph_id = $graph_id::VARCHAR AND p.path_id = $path_id::INTEGER
ORDER BY p.step, abs(p.input_factor * p.weight_factor) DESC, p.via, p.source_position
