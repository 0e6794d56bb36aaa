-- Two graphs of one prompt (of two dictionaries, as named query compare_graphs lists them): from which token each logit's value comes, and
-- where the graphs disagree.
-- Grain: one row per logit token, kind of source (embedding, error), position.
-- Order: absolute difference, largest first, then token, kind, position.
-- Reads: edges, graphs, nodes, vocabulary.
-- Parameters:
--   $graph_id: text         the first graph
--   $other: text            the second graph
--   $limit: integer = 1000  at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653 -p other=capital-of-france-0123abcd
-- influence: share of the logit's input that comes, along all paths, from the embedding at the position or from the errors there (features
-- whose incoming edges were not computed count as errors); of stored edges, pruned or not. path_length: mean number of edges of these paths,
-- weighted by their influence. direct: the part of the influence along the edge from source to logit.

WITH RECURSIVE share AS MATERIALIZED (
    SELECT e.graph_id, e.source_id, e.target_id,
           abs(e.weight) / nullif(sum(abs(e.weight)) OVER (PARTITION BY e.graph_id, e.target_id) + coalesce(t.dropped_mass, 0), 0) AS share
    FROM edges AS e
    JOIN nodes AS t ON t.graph_id = e.graph_id AND t.node_id = e.target_id
    WHERE e.graph_id IN ($graph_id::VARCHAR, $other::VARCHAR)
), flow AS (
    SELECT graph_id, token, node_id, 0 AS length, 1.0::DOUBLE AS influence
    FROM nodes WHERE graph_id IN ($graph_id::VARCHAR, $other::VARCHAR) AND kind = 'logit'
    UNION ALL
    SELECT f.graph_id, f.token, s.source_id, f.length + 1, sum(f.influence * s.share)
    FROM flow AS f JOIN share AS s ON s.graph_id = f.graph_id AND s.target_id = f.node_id
    GROUP BY f.graph_id, f.token, s.source_id, f.length
), source AS (
    SELECT graph_id, node_id, position, CASE kind WHEN 'embedding' THEN kind ELSE 'error' END AS kind
    FROM nodes
    WHERE graph_id IN ($graph_id::VARCHAR, $other::VARCHAR) AND (kind IN ('embedding', 'error') OR kind = 'feature' AND NOT expanded)
), entered AS (
    SELECT f.graph_id, f.token, s.kind, s.position, sum(f.influence) AS influence,
           sum(f.influence * f.length) / nullif(sum(f.influence), 0) AS path_length,
           coalesce(sum(f.influence) FILTER (f.length = 1), 0) AS direct
    FROM flow AS f JOIN source AS s USING (graph_id, node_id)
    GROUP BY f.graph_id, f.token, s.kind, s.position
), compared AS (
    SELECT token, kind, position,
           coalesce(max(influence) FILTER (graph_id = $graph_id::VARCHAR), 0) AS influence,
           coalesce(max(influence) FILTER (graph_id = $other::VARCHAR), 0) AS other_influence,
           max(path_length) FILTER (graph_id = $graph_id::VARCHAR) AS path_length,
           max(path_length) FILTER (graph_id = $other::VARCHAR) AS other_path_length,
           coalesce(max(direct) FILTER (graph_id = $graph_id::VARCHAR), 0) AS direct,
           coalesce(max(direct) FILTER (graph_id = $other::VARCHAR), 0) AS other_direct
    FROM entered GROUP BY token, kind, position
), words AS (
    SELECT v.token, v.string FROM vocabulary AS v JOIN graphs AS g USING (model_id) WHERE g.graph_id = $graph_id::VARCHAR
)
SELECT c.token, l.string AS logit, c.kind, c.position, w.string, c.influence, c.other_influence,
       c.influence - c.other_influence AS difference, c.path_length, c.other_path_length, c.direct, c.other_direct
FROM compared AS c
CROSS JOIN (SELECT tokens FROM graphs WHERE graph_id = $graph_id::VARCHAR) AS g
LEFT JOIN words AS l ON l.token = c.token
LEFT JOIN words AS w ON w.token = g.tokens[c.position + 1]
ORDER BY abs(difference) DESC, c.token, c.kind, c.position
LIMIT $limit::BIGINT
