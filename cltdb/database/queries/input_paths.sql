-- The strongest paths of a graph from its inputs to its targets (attribute.paths), with their sign.
-- Grain: one row per path.
-- Order: target (the likeliest first), rank.
-- Reads: graphs, nodes, path_steps, paths, vocabulary.
-- Parameters:
--   $graph_id: text                      the graph
--   $target_id: integer = NULL           only paths to this node; to all targets where NULL
--   $sign: both | positive | negative = both  only paths of this sign
--   $limit: integer = 1000               at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653
-- covered: the shares of the target's stored paths up to this one. vias: the strongest route of each step. path: in words; an arrow names the
-- route of its step where that is not the residual stream.

WITH names AS (
    SELECT n.node_id, CASE n.kind
        WHEN 'feature' THEN format('{}:{}@{}', n.layer, n.feature, n.position)
        WHEN 'error' THEN format('error {}@{}', n.layer, n.position)
        ELSE format('{}@{}', coalesce(v.string, nullif(n.label, ''), n.token::VARCHAR, 'direction'), n.position) END AS name,
        n.probability
    FROM nodes AS n JOIN graphs AS g USING (graph_id) LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = n.token
    WHERE n.graph_id = $graph_id::VARCHAR
), steps AS (
    SELECT path_id, step, source_id, target_id, arg_max(via, abs(input_factor * weight_factor)) AS via
    FROM path_steps WHERE graph_id = $graph_id::VARCHAR GROUP BY path_id, step, source_id, target_id
), walks AS (
    SELECT s.path_id, count(*) AS n_edges, list(s.source_id ORDER BY s.step) AS source_ids, list(s.via ORDER BY s.step) AS vias,
           string_agg(n.name || CASE s.via WHEN 'residual' THEN ' → ' ELSE format(' →({}) ', s.via) END, '' ORDER BY s.step) AS path
    FROM steps AS s JOIN names AS n ON n.node_id = s.source_id GROUP BY s.path_id
), ranked AS (
    SELECT path_id, rank, target_id, weight, share, sum(share) OVER (PARTITION BY target_id ORDER BY rank) AS covered
    FROM paths WHERE graph_id = $graph_id::VARCHAR
)
SELECT p.path_id, p.target_id, t.name AS target, p.rank, p.weight, p.share, p.covered, w.n_edges,
       list_append(w.source_ids, p.target_id) AS node_ids, w.vias, w.path || t.name AS path
FROM ranked AS p JOIN walks AS w USING (path_id) JOIN names AS t ON t.node_id = p.target_id
WHERE p.target_id = coalesce($target_id::INTEGER, p.target_id)
  AND ($sign::VARCHAR = 'both' OR (p.weight > 0) = ($sign::VARCHAR = 'positive'))
ORDER BY t.probability DESC, p.target_id, p.rank
LIMIT $limit::BIGINT
