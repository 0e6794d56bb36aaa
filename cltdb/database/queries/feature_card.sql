-- One feature: statistics with the histogram of its activations, best explanation and score, and as text the tokens it promotes and suppresses (logits) and those that drive and
-- inhibit it (embeddings).
-- Grain: one row per dict_id, layer, feature (one or none).
-- Order: none needed.
-- Reads: annotations, best_explanations, dictionaries, features, vocabulary.
-- Parameters:
--   $dict_id: text     the dictionary
--   $layer: integer    the layer the feature reads from
--   $feature: integer  its index in the layer
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222
-- n_features: of its layer.

WITH card AS MATERIALIZED (
    SELECT * FROM features
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
), best AS (
    SELECT text, score, detection, fuzzing, explainer, side FROM best_explanations
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
), own AS (
    SELECT text FROM annotations
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER AND kind = 'label' AND graph_id IS NULL
), dictionary AS (
    SELECT model_id, n_features FROM dictionaries WHERE dict_id = $dict_id::VARCHAR
), effects AS (
    SELECT 'promoted' AS kind, unnest(top_logits) AS e, generate_subscripts(top_logits, 1) AS place FROM card
    UNION ALL SELECT 'suppressed', unnest(bottom_logits), generate_subscripts(bottom_logits, 1) FROM card
    UNION ALL SELECT 'driven_by', unnest(top_embeddings), generate_subscripts(top_embeddings, 1) FROM card
    UNION ALL SELECT 'inhibited_by', unnest(bottom_embeddings), generate_subscripts(bottom_embeddings, 1) FROM card
), named AS (
    SELECT e.kind, e.place, {token: e.e.token, string: w.string, value: e.e.value} AS effect
    FROM effects AS e
    LEFT JOIN (SELECT token, string FROM vocabulary WHERE model_id = (SELECT model_id FROM dictionary)) AS w ON w.token = e.e.token
), listed AS (
    SELECT list(effect ORDER BY place) FILTER (kind = 'promoted') AS promoted,
           list(effect ORDER BY place) FILTER (kind = 'suppressed') AS suppressed,
           list(effect ORDER BY place) FILTER (kind = 'driven_by') AS driven_by,
           list(effect ORDER BY place) FILTER (kind = 'inhibited_by') AS inhibited_by
    FROM named
)
SELECT f.dict_id, f.layer, f.feature, b.text, b.score, b.detection, b.fuzzing, b.explainer, b.side, f.density, f.max_activation, f.mean_activation,
       f.threshold, f.encoder_norm, f.decoder_norms, f.dead, o.text AS own_label, f.n_contexts, f.n_documents, f.std_activation, f.quantiles,
       f.histogram, d.n_features, l.promoted, l.suppressed, l.driven_by, l.inhibited_by
FROM card AS f
LEFT JOIN best AS b ON true
LEFT JOIN own AS o ON true
LEFT JOIN dictionary AS d ON true
CROSS JOIN listed AS l
