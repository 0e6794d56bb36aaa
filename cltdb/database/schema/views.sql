-- The views. Re-applied after every migration, before comments.sql (CREATE OR REPLACE VIEW drops comments).

-- One row per dict_id, layer, feature: its statistics and its best explanation. Explanations of what drives the feature (side input) come
-- before those of what it writes, then the higher score, then the explainer's name. Baselines never count.
CREATE OR REPLACE VIEW feature_cards AS
WITH score_of AS (
    SELECT dict_id, layer, feature, side, explainer,
           max(score) FILTER (scorer = 'detection') AS detection,
           max(score) FILTER (scorer = 'fuzzing') AS fuzzing,
           avg(score) AS mean_score
    FROM scores
    WHERE NOT starts_with(explainer, 'baseline:')
    GROUP BY ALL
), best AS (
    SELECT e.dict_id, e.layer, e.feature, e.side, e.explainer, e.text, s.detection, s.fuzzing,
           coalesce(s.detection, s.fuzzing, s.mean_score) AS score
    FROM explanations AS e
    LEFT JOIN score_of AS s USING (dict_id, layer, feature, side, explainer)
    WHERE e.status = 'ok' AND NOT starts_with(e.explainer, 'baseline:')
    QUALIFY row_number() OVER (PARTITION BY e.dict_id, e.layer, e.feature
                               ORDER BY e.side, score DESC NULLS LAST, e.explainer) = 1
)
SELECT f.dict_id, f.layer, f.feature, b.text, b.score, b.detection, b.fuzzing, b.explainer, b.side,
       f.density, f.max_activation, f.mean_activation, f.threshold, f.encoder_norm, f.decoder_norms, f.dead,
       f.top_logits, f.bottom_logits, f.top_embeddings, f.bottom_embeddings
FROM features AS f
LEFT JOIN best AS b USING (dict_id, layer, feature);

-- One row per graph_id, source_id, target_id: the edge with both of its ends spelled out.
CREATE OR REPLACE VIEW named_edges AS
WITH named_nodes AS (
    SELECT n.graph_id, n.node_id, n.kind, n.layer, n.position, n.feature, n.activation,
           coalesce(v.string, CASE n.kind WHEN 'logit' THEN n.label ELSE g.token_strings[n.position + 1] END) AS string,
           CASE n.kind WHEN 'feature' THEN coalesce(c.text, n.label) ELSE n.kind || ' ' || coalesce(string, '') END AS text
    FROM nodes AS n
    JOIN graphs AS g USING (graph_id)
    LEFT JOIN vocabulary AS v ON v.model_id = g.model_id AND v.token = coalesce(n.token, g.tokens[n.position + 1])
    LEFT JOIN feature_cards AS c
        ON n.kind = 'feature' AND c.dict_id = g.dict_id AND c.layer = n.layer AND c.feature = n.feature
)
SELECT e.graph_id, e.source_id, e.target_id, e.weight, e.influence, e.kept, e.measured,
       s.kind AS source_kind, s.layer AS source_layer, s.position AS source_position, s.feature AS source_feature,
       s.activation AS source_activation, s.string AS source_string, s.text AS source_text,
       t.kind AS target_kind, t.layer AS target_layer, t.position AS target_position, t.feature AS target_feature,
       t.activation AS target_activation, t.string AS target_string, t.text AS target_text
FROM edges AS e
JOIN named_nodes AS s ON s.graph_id = e.graph_id AND s.node_id = e.source_id
JOIN named_nodes AS t ON t.graph_id = e.graph_id AND t.node_id = e.target_id;
