-- A graph of groups: edges between the groups that users made, without any those of artifacts; every other node is a group of its own.
-- Grain: one row per source group, target group.
-- Order: influence, highest first, then source, target.
-- Reads: edges, graphs, nodes, supernodes, vocabulary.
-- Parameters:
--   $graph_id: text            the graph
--   $kept: boolean = true      true: only nodes and edges that survive pruning
--   $limit: integer = 1000000  at most this many rows
-- Example: -p graph_id=capital-of-france-10de5653
-- A source or target is a supernode_id, or the kind and node_id of a node in no group; a node of several groups counts in each.
-- weight: share of the target's input that comes from the source, mean over the target's nodes weighted by their influence (a target's own
-- weight included); a share is |weight| over the sum of all that enters a node, pruned edges and dropped mass too, so that shares of a
-- target add up to at most 1. signed_weight: the same with the sign of each edge. influence: weight times the influence of the target's nodes.

WITH n AS (
    SELECT node_id, kind, influence + coalesce(probability, 0) AS influence, dropped_mass,
           CASE kind WHEN 'feature' THEN format('{}:{}@{}', layer, feature, position)
                     WHEN 'error' THEN format('error {}@{}', layer, position)
                     ELSE format('{} {}@{}', kind, string, position) END AS name
    FROM (
        SELECT n.*, coalesce(v.string, nullif(n.label, ''), n.token::VARCHAR, 'direction') AS string
        FROM nodes AS n
        JOIN graphs AS g USING (graph_id)
        LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = n.token
        WHERE n.graph_id = $graph_id::VARCHAR AND (n.kept OR NOT $kept::BOOLEAN)
    )
), member AS (
    SELECT supernode_id, name, unnest(node_ids) AS node_id
    FROM (
        FROM supernodes WHERE graph_id = $graph_id::VARCHAR
        QUALIFY (artifact_key IS NULL) = bool_or(artifact_key IS NULL) OVER ()
    )
), grouped AS (
    SELECT n.node_id, n.influence, coalesce(m.supernode_id, n.kind || ' ' || n.node_id) AS id, coalesce(m.name, n.name) AS name
    FROM n LEFT JOIN member AS m USING (node_id)
), size AS (
    SELECT id, count(*) AS n_nodes, sum(influence) AS influence FROM grouped GROUP BY id
), share AS (
    SELECT e.source_id, e.target_id, e.kept,
           e.weight / nullif(sum(abs(e.weight)) OVER (PARTITION BY e.target_id) + coalesce(t.dropped_mass, 0), 0) AS share
    FROM edges AS e JOIN nodes AS t ON t.graph_id = e.graph_id AND t.node_id = e.target_id
    WHERE e.graph_id = $graph_id::VARCHAR
)
SELECT s.id AS source, any_value(s.name) AS source_name, t.id AS target, any_value(t.name) AS target_name,
       sum(t.influence * abs(e.share)) / nullif(any_value(z.influence), 0) AS weight,
       sum(t.influence * e.share) / nullif(any_value(z.influence), 0) AS signed_weight,
       sum(t.influence * abs(e.share)) AS influence,
       count(*) AS n_edges
FROM share AS e
JOIN grouped AS s ON s.node_id = e.source_id
JOIN grouped AS t ON t.node_id = e.target_id
JOIN size AS z ON z.id = t.id
WHERE s.id <> t.id AND (e.kept OR NOT $kept::BOOLEAN)
GROUP BY s.id, t.id
ORDER BY influence DESC NULLS LAST, source, target
LIMIT $limit::BIGINT
