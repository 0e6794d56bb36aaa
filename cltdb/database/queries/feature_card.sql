-- One feature: statistics, best explanation and score, promoted and suppressed tokens as text.
-- Grain: one row per dict_id, layer, feature (one or none).
-- Order: none needed.
-- Parameters:
--   $dict_id  the dictionary
--   $layer    the layer the feature reads from
--   $feature  its index in the layer

WITH card AS (
    SELECT * FROM feature_cards
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER AND feature = $feature::INTEGER
), words AS (
    SELECT token, string FROM vocabulary
    WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR)
), promoted AS (
    SELECT list({token: e.token, string: w.string, value: e.value} ORDER BY e.place) AS effects
    FROM (SELECT unnest(top_logits, recursive := true), generate_subscripts(top_logits, 1) AS place FROM card) AS e
    LEFT JOIN words AS w ON w.token = e.token
), suppressed AS (
    SELECT list({token: e.token, string: w.string, value: e.value} ORDER BY e.place) AS effects
    FROM (SELECT unnest(bottom_logits, recursive := true), generate_subscripts(bottom_logits, 1) AS place FROM card) AS e
    LEFT JOIN words AS w ON w.token = e.token
)
SELECT card.* EXCLUDE (top_logits, bottom_logits), promoted.effects AS promoted, suppressed.effects AS suppressed
FROM card, promoted, suppressed
