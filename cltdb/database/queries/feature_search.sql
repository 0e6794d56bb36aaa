-- Features that have to do with a text: by words, beginnings of words and neighbours in meaning, in explanations, firing and promoted tokens, labels, own labels of users.
-- Grain: one row per dict_id, layer, feature.
-- Order: live features before dead ones, then relevance, highest first, then dict_id, layer, feature.
-- Reads: annotations, best_explanations, dictionaries, explanation_words, features, token_features, vocabulary, window_labels, word_statistics, words.
-- Parameters:
--   $text: text                what to look for: words in any order; case and accents make no difference; the first 32 count
--   $dict_id: text = NULL      only this dictionary
--   $layer: integer = NULL     only this layer
--   $min_score: number = NULL  only features with an explanation of at least this score (0 to 1)
--   $alive: boolean = NULL     true: no dead features
--   $limit: integer = 50       at most this many rows
-- Example: -p text="capital cities"
-- A word of the text weighs -ln of the share of explanations or sentences of the harvest's text that have it. Words that weigh less than
-- 0.3 of the rarest known one are passed over, and those in a quarter of all texts where another is asked for. What is found counts by its likeness to the word: 1 the word itself; 0.9 its plural or form in -ing;
-- up to 0.7 words that begin with it; up to 0.4 words that hold it; up to 0.6 neighbours in meaning that lead to features. Per word a feature gets: up to 1 for its
-- explanation (BM25); 2 for a user's own label that holds it; 1.5 times the share of its strongest windows that peak on such tokens; up to 1 for a label, by how much commoner it is
-- in the feature's windows than in the layer's, from 0.25 on; up to 0.4 for tokens that it promotes. relevance: their weighted mean, times the square root of
-- the share of the text that was found, times 0.8 to 1 by the explanation's score. The 2,000 features that fit best by words are considered.
-- found_in: up to three reasons, the strongest first, with the share of the feature's strongest windows that peak on a token, or what it adds to
-- the token's logit and the token's rank among those that it promotes.

WITH asked AS MATERIALIZED (
    SELECT i, word,
           CASE WHEN length(word) > 4 AND word LIKE '%ies' THEN word[:-4] || 'y'
                WHEN regexp_matches(word, '(ss|us|is)$') THEN word
                WHEN length(word) > 4 AND regexp_matches(word, '(s|x|z|ch|sh)es$') THEN word[:-3]
                WHEN length(word) > 3 AND word LIKE '%s' THEN word[:-2]
                WHEN length(word) > 5 AND word LIKE '%ing' THEN word[:-4]
                ELSE word END AS stem
    FROM (
        SELECT unnest(parts) AS word, generate_subscripts(parts, 1) AS i
        FROM (SELECT list_distinct(regexp_extract_all(strip_accents(lower($text::VARCHAR)),
                                                      '[\p{L}\p{M}\p{N}_]+|[^\s\p{L}\p{M}\p{N}_]+'))[:32] AS parts)
    )
), literal AS MATERIALIZED (
    SELECT w.dict_id, a.i, w.word, w.share, w.tokens, w.labels, w.vector,
           CASE WHEN w.word = a.word THEN 1 WHEN w.stem = a.stem THEN 0.9
                WHEN starts_with(w.word, a.stem) THEN 0.7 * length(a.stem) / length(w.word)
                ELSE 0.4 * length(a.stem) / length(w.word) END AS likeness
    FROM words AS w
    JOIN asked AS a ON w.word = a.word OR w.stem = a.stem OR ((length(a.stem) > 2 OR a.stem > '~') AND contains(w.word, a.stem))
    WHERE ($dict_id::VARCHAR IS NULL OR w.dict_id = $dict_id::VARCHAR)
    QUALIFY row_number() OVER (PARTITION BY w.dict_id, a.i ORDER BY likeness DESC, w.word) <= 30
        AND likeness >= 0.5 * max(likeness) OVER (PARTITION BY w.dict_id, a.i)
), weighted AS MATERIALIZED (
    SELECT *, weight / sum(weight) OVER (PARTITION BY dict_id) AS part
    FROM (
        SELECT s.dict_id, a.i, greatest(0.05, coalesce(-ln(arg_max(l.share, l.likeness)), 9)) AS weight,
               max(l.likeness) AS best, arg_max(l.vector, l.likeness) AS vector
        FROM word_statistics AS s CROSS JOIN asked AS a LEFT JOIN literal AS l ON l.dict_id = s.dict_id AND l.i = a.i
        WHERE ($dict_id::VARCHAR IS NULL OR s.dict_id = $dict_id::VARCHAR)
        GROUP BY s.dict_id, a.i
        QUALIFY weight >= 0.3 * max(if(best IS NULL, 0, weight)) OVER (PARTITION BY s.dict_id)
            AND (weight >= 1.4 OR max(weight) OVER (PARTITION BY s.dict_id) < 1.4)
    )
), likened AS MATERIALIZED (  -- without the vectors, which ranking would carry along
    SELECT a.dict_id, a.i, a.best, a.weight, w.word, w.tokens, w.share, array_inner_product(a.vector, w.vector) AS cosine
    FROM weighted AS a JOIN (FROM words WHERE reaches IS NOT FALSE AND vector IS NOT NULL) AS w ON w.dict_id = a.dict_id
    WHERE cosine >= 0.4 AND a.best >= 0.9 AND w.share < 1
), neighbours AS (
    SELECT dict_id, i, word, tokens, 0.6 * best * cosine ** 2 * least(1, -ln(share) / weight) AS likeness
    FROM likened
    QUALIFY row_number() OVER (PARTITION BY dict_id, i ORDER BY likeness DESC, word)
            <= greatest(8, least(48, 96 // greatest(1, (SELECT count(*) FROM asked))))
), forms AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY dict_id, i, word) AS form, *
    FROM (
        SELECT dict_id, i, word, max(likeness) AS likeness, any_value(tokens) AS tokens, any_value(labels) AS labels
        FROM (
            SELECT dict_id, i, word, likeness, tokens, labels FROM literal SEMI JOIN weighted USING (dict_id, i)
            UNION ALL SELECT dict_id, i, word, likeness, tokens, NULL FROM neighbours
        )
        GROUP BY ALL
    )
), token_forms AS MATERIALIZED (
    SELECT dict_id, i, token, max(likeness) AS likeness, arg_max(form, likeness - 1e-9 * form) AS form
    FROM (SELECT dict_id, i, form, likeness, unnest(tokens) AS token FROM forms)
    GROUP BY ALL
), said AS (
    SELECT e.dict_id, e.layer, e.feature, f.i, max(f.likeness) AS likeness, arg_max(f.form, f.likeness - 1e-9 * f.form) AS form,
           sum(e.n * f.likeness) / max(f.likeness) AS n, any_value(e.length) AS length
    FROM (FROM explanation_words WHERE ($layer::INTEGER IS NULL OR layer = $layer::INTEGER) AND word IN (SELECT word FROM forms)) AS e
    JOIN forms AS f ON f.dict_id = e.dict_id AND f.word = e.word
    GROUP BY ALL
), touched AS (
    SELECT t.dict_id, t.layer, t.feature, f.i, t.role = 'fires_on' AS fires, sum(t.weight * f.likeness) AS total,
           max(t.weight * f.likeness) AS best, arg_max(t.token, t.weight * f.likeness - 1e-9 * t.token) AS token,
           arg_max(t.weight, t.weight * f.likeness - 1e-9 * t.token) AS weight
    FROM (FROM token_features WHERE ($layer::INTEGER IS NULL OR layer = $layer::INTEGER) AND token IN (SELECT token FROM token_forms)) AS t
    JOIN token_forms AS f ON f.dict_id = t.dict_id AND f.token = t.token
    WHERE t.weight > 0 AND (t.role = 'fires_on' OR f.likeness >= 0.5)
    GROUP BY ALL
), found AS MATERIALIZED (
    SELECT dict_id, layer, feature, i, 'explanation' AS field, form, NULL AS token, NULL AS weight, NULL AS label,
           likeness * n / (n + 1.2 * (0.25 + 0.75 * length / s.mean_length)) AS strength
    FROM said JOIN word_statistics AS s USING (dict_id)
    UNION ALL
    SELECT dict_id, layer, feature, i, CASE WHEN fires THEN 'fires on' ELSE 'promotes' END, NULL, token, weight, NULL,
           CASE WHEN fires THEN 1.5 * total ELSE 0.4 * best / (best + s.mean_effect) END
    FROM touched JOIN word_statistics AS s USING (dict_id)
    UNION ALL
    SELECT l.dict_id, l.layer, l.feature, f.i, 'text labelled', f.form, NULL, NULL, label,
           f.likeness * (l.n_windows / l.n_labelled - l.of_layer) / nullif(1 - l.of_layer, 0)
    FROM window_labels AS l
    JOIN (SELECT dict_id, i, form, likeness, unnest(labels) AS label FROM forms WHERE likeness >= 0.9) AS f USING (dict_id, label)
    WHERE l.of_layer < 1 AND l.n_windows > (0.25 + 0.75 * l.of_layer) * l.n_labelled AND ($layer::INTEGER IS NULL OR l.layer = $layer::INTEGER)
    UNION ALL
    SELECT o.dict_id, o.layer, o.feature, a.i, 'own label', NULL, NULL, NULL, o.text, 2
    FROM annotations AS o JOIN asked AS a ON contains(strip_accents(lower(o.text)), a.stem)
    WHERE o.kind = 'label' AND o.feature IS NOT NULL AND ($layer::INTEGER IS NULL OR o.layer = $layer::INTEGER)
), candidates AS MATERIALIZED (
    SELECT dict_id, layer, feature, sum(strength * part) * sqrt(sum(least(1, strength) * part)) AS relevance
    FROM (SELECT dict_id, layer, feature, i, sum(strength) AS strength FROM found GROUP BY ALL) JOIN weighted USING (dict_id, i)
    GROUP BY ALL
    ORDER BY round(relevance, 6) DESC, dict_id, layer, feature
    LIMIT 2000
), ranked AS MATERIALIZED (
    SELECT c.dict_id, c.layer, c.feature, b.text, b.score, b.explainer, f.density, f.max_activation, f.dead, f.top_logits,
           round(c.relevance * (0.8 + 0.2 * coalesce(b.score, 0)), 6) AS relevance
    FROM candidates AS c
    JOIN (FROM features WHERE feature IN (SELECT feature FROM candidates)) AS f USING (dict_id, layer, feature)
    LEFT JOIN (FROM best_explanations WHERE feature IN (SELECT feature FROM candidates)) AS b USING (dict_id, layer, feature)
    WHERE ($min_score::DOUBLE IS NULL OR b.score >= $min_score::DOUBLE) AND ($alive::BOOLEAN IS NOT TRUE OR NOT f.dead)
    ORDER BY f.dead, relevance DESC, c.dict_id, c.layer, c.feature
    LIMIT $limit::BIGINT
), why AS (
    SELECT f.dict_id, f.layer, f.feature,
           list(f.field || ' ''' || coalesce(f.label, v.string, o.word) || ''''
                || coalesce(' (' || nullif(concat_ws(', ', CASE WHEN o.likeness < 0.9 THEN 'near ''' || a.word || '''' END,
                       CASE f.field WHEN 'fires on' THEN round(100 * f.weight)::INTEGER || ' % of its strongest windows'
                                    WHEN 'promotes' THEN printf('%+.2g', f.weight::DOUBLE) || ', rank '
                                         || list_position(list_transform(r.top_logits, lambda one: one.token), f.token) END), '') || ')', '')
                ORDER BY f.strength * w.part DESC, f.field, a.i)[:3] AS reasons
    FROM found AS f
    JOIN ranked AS r USING (dict_id, layer, feature)
    JOIN weighted AS w USING (dict_id, i)
    JOIN asked AS a USING (i)
    LEFT JOIN token_forms AS t ON t.dict_id = f.dict_id AND t.i = f.i AND t.token = f.token
    LEFT JOIN forms AS o ON o.form = coalesce(f.form, t.form)
    LEFT JOIN dictionaries AS d ON d.dict_id = f.dict_id
    LEFT JOIN vocabulary AS v ON v.model_id = d.model_id AND v.token = f.token
    GROUP BY ALL
)
SELECT r.dict_id, r.layer, r.feature, r.relevance, array_to_string(w.reasons, '; ') AS found_in, r.text, r.score, r.explainer,
       r.density, r.max_activation, r.dead
FROM ranked AS r
JOIN why AS w USING (dict_id, layer, feature)
ORDER BY r.dead, r.relevance DESC, r.dict_id, r.layer, r.feature
