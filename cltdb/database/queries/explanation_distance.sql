-- How much alike a dictionary's explanations are: the mean cosine of two explanations of features of one layer, beside that of shuffled pairs, whose
-- features are of different layers, and how well they predict activations.
-- Grain: one row per dict_id, side, explainer, vectors.
-- Order: dict_id, side, explainer, vectors.
-- Reads: dictionaries, experiments, explanations, scores, stage_runs, text_embeddings.
-- Parameters:
--   $dict_id: text = NULL      only this dictionary
--   $sweep: text = NULL        only this sweep, or this experiment
--   $explainer: text = NULL    only this explainer
--   $per_layer: integer = 250  so many explanations of each layer, drawn, at most 999,999; one that has no word does not count
-- vectors: tf-idf, of words, (1 + ln n) * (1 + ln((1 + N) / (1 + N of the word))) with the explanations of all dictionaries of the model by this
-- explainer; or a model of text_embeddings, of explanations that have a vector other than 0. Low and high ends of 95 %: of cosines by a normal
-- approximation over features, each with all its pairs, cut off at 1; NULL of a single pair. detection: mean score of all that were scored; its ends are
-- Wilson's, where n is that at which a share varies as much as the mean does. swept: the values of a sweep's keys, as JSON.

WITH placed AS (
    SELECT d.dict_id, d.model_id, coalesce(e.experiment, d.experiment) AS experiment, e.swept,
           $sweep::VARCHAR IS NULL OR coalesce($sweep::VARCHAR IN (e.sweep, e.experiment, d.experiment), false) AS is_wanted
    FROM dictionaries AS d
    LEFT JOIN stage_runs AS r ON r.stage = 'train' AND r.key = d.artifact_key
    LEFT JOIN experiments AS e ON e.experiment = r.experiment AND e.spec_hash = r.spec_hash
    QUALIFY row_number() OVER (
        PARTITION BY d.dict_id ORDER BY is_wanted DESC, e.sweep NULLS LAST, e.created_at, e.experiment, e.spec_hash) = 1
), groups AS MATERIALIZED (  -- numbers in place of names, by which is grouped in half the time: g of dictionary, side, explainer; m of model, side, explainer; v of vectors
    SELECT *, row_number() OVER (ORDER BY dict_id, side, explainer) AS g, dense_rank() OVER (ORDER BY model_id, side, explainer) AS m
    FROM (
        SELECT dict_id, side, explainer, list({layer: layer, texts: texts}) AS layers
        FROM (
            SELECT dict_id, side, explainer, layer,
                   arg_min(text, (feature::BIGINT * 2654435761 % 4294967296 << 31) + feature, greatest(1, least($per_layer::BIGINT, 999999))) AS texts
            FROM explanations
            WHERE status = 'ok' AND NOT starts_with(explainer, 'baseline:') AND ($explainer::VARCHAR IS NULL OR explainer = $explainer::VARCHAR)
              AND $per_layer::BIGINT > 0
            GROUP BY dict_id, side, explainer, layer
        )
        GROUP BY dict_id, side, explainer
    )
    JOIN placed USING (dict_id)
), drawn AS MATERIALIZED (  -- t: number of a text
    SELECT row_number() OVER () AS t, *
    FROM (SELECT g, m, layer, unnest(texts) AS text FROM (SELECT g, m, unnest(layers, recursive := true) FROM groups))
), said AS MATERIALIZED (
    SELECT t, m, word, 1 + ln(count(*)) AS weight
    FROM (SELECT t, m, unnest(regexp_extract_all(strip_accents(lower(text)), '[\p{L}\p{M}\p{N}_]+')) AS word FROM drawn)
    GROUP BY t, m, word
), rarity AS MATERIALIZED (  -- so that a word has one number wherever entries are asked
    SELECT m, word, 1 + ln((1 + any_value(n)) / (1 + count(*))) AS factor, row_number() OVER () AS number
    FROM said
    JOIN (SELECT m, count(DISTINCT t) AS n FROM said GROUP BY m) USING (m)
    GROUP BY m, word
), models AS MATERIALIZED (
    SELECT 0 AS v, 'tf-idf' AS vectors UNION ALL SELECT row_number() OVER (ORDER BY model), model FROM (SELECT DISTINCT model FROM text_embeddings)
), entries AS MATERIALIZED (
    SELECT t, 0 AS v, number AS dimension, weight * factor AS value
    FROM said JOIN rarity USING (m, word)
    UNION ALL
    SELECT t, v, generate_subscripts(vector, 1), unnest(vector)
    FROM drawn JOIN text_embeddings ON text_md5 = md5(text) AND list_inner_product(vector, vector) > 0 JOIN models ON vectors = model
), lengths AS MATERIALIZED (
    SELECT t, v, g, layer, length
    FROM (SELECT t, v, sqrt(fsum(value * value)) AS length FROM entries GROUP BY t, v)
    JOIN drawn USING (t)
    WHERE g IN (SELECT g FROM groups WHERE is_wanted AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR))
), chosen AS MATERIALIZED (
    SELECT g, v, layer, t, dimension, value / length AS value FROM entries JOIN lengths USING (t, v)
), sums AS (
    SELECT g, v, layer, dimension, in_layer, fsum(in_layer) OVER (PARTITION BY g, v, dimension) - in_layer AS in_others
    FROM (SELECT g, v, layer, dimension, fsum(value) AS in_layer FROM chosen GROUP BY ALL)
), with_others AS MATERIALIZED (
    SELECT g, v, same, other, count(*) OVER (PARTITION BY g, v, layer) - 1 AS n_same, count(*) OVER (PARTITION BY g, v) - 1 - n_same AS n_other
    FROM (SELECT g, v, layer, t, fsum(value * in_layer) - 1 AS same, fsum(value * in_others) AS other
          FROM chosen JOIN sums USING (g, v, layer, dimension) GROUP BY g, v, layer, t)
), means AS (
    SELECT g, v, count(*) AS n, sum(n_same) AS pairs_same, sum(n_other) AS pairs_other,
           fsum(same) / nullif(pairs_same, 0) AS cosine, fsum(other) / nullif(pairs_other, 0) AS shuffled
    FROM with_others GROUP BY g, v
), errors AS (
    SELECT g, v,
           if(any_value(pairs_same) > 2, 1.96 * 2 * sqrt(fsum((same - cosine * n_same) ** 2)) / any_value(pairs_same), NULL) AS cosine_error,
           if(any_value(pairs_other) > 2, 1.96 * 2 * sqrt(fsum((other - shuffled * n_other) ** 2)) / any_value(pairs_other), NULL) AS shuffled_error
    FROM with_others JOIN means USING (g, v) GROUP BY g, v
), scored AS (
    SELECT *, wilson(detection, CASE WHEN n_scored < 2 THEN NULL
                                     WHEN detection IN (0, 1) THEN n_scored - 1
                                     ELSE least(asked, (n_scored - 1) * detection * (1 - detection) / nullif(spread, 0)) END) AS ends
    FROM (SELECT dict_id, side, explainer, count(score) AS n_scored, favg(score) AS detection, var_pop(score) AS spread, sum(n)::DOUBLE AS asked
          FROM scores WHERE scorer = 'detection' AND NOT isnan(score) GROUP BY dict_id, side, explainer)
)
SELECT p.experiment, p.swept, p.dict_id, p.side, p.explainer, w.vectors, m.n,  -- sums of threads differ in their last bits
       round(m.cosine, 9) AS cosine, round(m.cosine - e.cosine_error, 9) AS cosine_low, round(least(m.cosine + e.cosine_error, 1), 9) AS cosine_high,
       round(m.shuffled, 9) AS shuffled, round(m.shuffled - e.shuffled_error, 9) AS shuffled_low,
       round(least(m.shuffled + e.shuffled_error, 1), 9) AS shuffled_high,
       s.n_scored, round(s.detection, 9) AS detection, round(s.ends.low, 9) AS detection_low, round(s.ends.high, 9) AS detection_high
FROM means AS m
JOIN errors AS e USING (g, v)
JOIN models AS w USING (v)
JOIN groups AS p USING (g)
LEFT JOIN scored AS s USING (dict_id, side, explainer)
ORDER BY p.dict_id, p.side, p.explainer, w.vectors
