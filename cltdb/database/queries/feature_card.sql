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
), words AS (
    SELECT map(list(token), list(string)) AS of_token FROM vocabulary
    WHERE model_id = (SELECT model_id FROM dictionary)
      AND token IN (SELECT unnest(list_concat(top_logits, bottom_logits, top_embeddings, bottom_embeddings)).token FROM card)
)
SELECT f.dict_id, f.layer, f.feature, b.text, b.score, b.detection, b.fuzzing, b.explainer, b.side, f.density, f.max_activation, f.mean_activation,
       f.threshold, f.encoder_norm, f.decoder_norms, f.dead, o.text AS own_label, f.n_contexts, f.n_documents, f.std_activation, f.quantiles,
       f.histogram, d.n_features,
       nullif(list_transform(f.top_logits, lambda e: {token: e.token, string: w.of_token[e.token], value: e.value}), []) AS promoted,
       nullif(list_transform(f.bottom_logits, lambda e: {token: e.token, string: w.of_token[e.token], value: e.value}), []) AS suppressed,
       nullif(list_transform(f.top_embeddings, lambda e: {token: e.token, string: w.of_token[e.token], value: e.value}), []) AS driven_by,
       nullif(list_transform(f.bottom_embeddings, lambda e: {token: e.token, string: w.of_token[e.token], value: e.value}), []) AS inhibited_by
FROM card AS f
LEFT JOIN best AS b ON true
LEFT JOIN own AS o ON true
LEFT JOIN dictionary AS d ON true
CROSS JOIN words AS w
