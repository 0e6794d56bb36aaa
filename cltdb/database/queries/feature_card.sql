-- One feature: statistics with the histogram of its activations, best explanation and score, and as text the tokens it promotes and suppresses (logits) and those that drive and
-- inhibit it (embeddings).
-- Grain: one row per dict_id, layer, feature (one or none).
-- Order: none needed.
-- Reads: dictionaries, feature_cards, features, vocabulary.
-- Parameters:
--   $dict_id: text     the dictionary
--   $layer: integer    the layer the feature reads from
--   $feature: integer  its index in the layer
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222
-- n_features: of its layer.

WITH card AS (
    SELECT * FROM feature_cards
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
), known AS (
    SELECT n_contexts, n_documents, std_activation, quantiles, histogram FROM features
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
), words AS (
    SELECT token, string FROM vocabulary
    WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR)
), effects AS (
    SELECT kind, place, e.token, e.value
    FROM (
        SELECT kind, unnest(tokens) AS e, generate_subscripts(tokens, 1) AS place
        FROM (
            UNPIVOT (SELECT top_logits AS promoted, bottom_logits AS suppressed, top_embeddings AS driven_by,
                            bottom_embeddings AS inhibited_by FROM card)
            ON promoted, suppressed, driven_by, inhibited_by INTO NAME kind VALUE tokens
        )
    )
), named AS (
    SELECT kind, list({token: e.token, string: w.string, value: e.value} ORDER BY e.place) AS effects
    FROM effects AS e
    LEFT JOIN words AS w ON w.token = e.token
    GROUP BY kind
)
SELECT card.* EXCLUDE (top_logits, bottom_logits, top_embeddings, bottom_embeddings), known.*,
       (SELECT n_features FROM dictionaries WHERE dict_id = $dict_id::VARCHAR) AS n_features,
       (SELECT effects FROM named WHERE kind = 'promoted') AS promoted,
       (SELECT effects FROM named WHERE kind = 'suppressed') AS suppressed,
       (SELECT effects FROM named WHERE kind = 'driven_by') AS driven_by,
       (SELECT effects FROM named WHERE kind = 'inhibited_by') AS inhibited_by
FROM card CROSS JOIN known
