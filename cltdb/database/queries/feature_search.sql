-- Features that have to do with a text: by words, beginnings of words, neighbours in meaning and a glossary, in explanations, firing and promoted tokens, tokens before peaks, labels, own labels of users.
-- Grain: one row per dict_id, layer, feature.
-- Order: live features before dead ones, then relevance, highest first, then dict_id, layer, feature.
-- Reads: annotations, best_explanations, dictionaries, explanation_words, features, token_features, vocabulary, window_labels, word_forms, word_statistics, words.
-- Parameters:
--   $text: text                what to look for: words in any order; case, accents, an apostrophe after a letter and a comma or full stop at a word's end make no difference; the first 32 count
--   $dict_id: text = NULL      only this dictionary
--   $layer: integer = NULL     only this layer
--   $min_score: number = NULL  only features with an explanation of at least this score (0 to 1)
--   $alive: boolean = NULL     true: no dead features
--   $limit: integer = 50       at most this many rows
--   $glossary: texts = NULL    words of the text that name a kind of things, each with an instance: ["weekdays monday", "weekdays tuesday"], with " +" after it where several words name it together, " =" where the word is the name of the sign or number, " ~" where it is a translation, and then the name of a language with which text must be labelled; default: what cltdb's glossary has, [] for none
--   $order: texts = NULL       words of the text, each with where it stands: "capital before" before the peak, "country next" right after it, "article here" at it, "after -" for a word that only tells the order; default: what words of order in the text say, [] for none
-- Example: -p text="capital cities"
-- A text that is a token, such as <bos>, is looked up as this token, and as the word within its signs. Function words (a, of, which ...) and word, token and feature are passed over where another word is asked for. Others weigh -ln of the share of
-- explanations or sentences of the harvest's text that have them; words that are known by the glossary alone -ln of the sum of the shares of their instances,
-- at least 1.4; words that are only a label 3 at most. Other known words that weigh less than
-- 0.3 of the rarest known one are passed over, and those in a quarter of all texts where another known one is asked for. What is found counts by its likeness
-- to the word: 1 the word itself; 0.9 its plural or form in -ing; up to 0.7 words that begin with it; up to 0.4 words that hold it; up to 0.6 neighbours in meaning
-- that lead to features, by how much nearer they are than the mean of the 48 nearest; 0.5 instances that the glossary
-- has of it, or 0.2 where explanations or the harvest's text have the word, down to half of it for those that are less than half as rare (-ln of the share) as the rarest.
-- Where several words name instances together (end of a sentence, names of cities, a country in Europe), or a plural (countries), these count 0.85, and what is like one
-- of the words by its letters half. Signs and numbers that a word is the name of (comma, seven) count 0.85, words of
-- other languages 0.6 where text is labelled with these, and 0.85 where the text names the language (early in German). Per word a feature gets: up to 0.8 for its
-- explanation (BM25); 2 for a user's own label that holds it, as a word where it has two letters at most; 1.5 times the share of its strongest windows that peak on such tokens; up to 1.25
-- for the share that has the word, or what is half as like, among the eight tokens before the peak, where few other features of the layer do (token_features, role follows), 0.4 where
-- the feature is found by one word alone; up to 1 for a label, by how much commoner it is
-- in the feature's windows than in the layer's, from 0.25 on; up to 0.4 for tokens that it promotes. Words of order ($order) change this:
-- each place (before, here, next) weighs alike, whatever its words weigh, and relevance is the weighted mean times the share found, without a root: a feature has to have all of them;
-- a word that stands before the peak gets up to 1 for the share that has it directly before the peak (all its tokens; role right_after) and up to 0.75 for the share that has it
-- among the eight tokens before; one that comes next up to 1 for the share that has it directly after the peak (right_before) and up to 0.75 for promoted tokens (their sum);
-- both a quarter of what they get for an explanation, and up to 0.75 less where the feature peaks on them; one at the peak nothing for tokens before it or promoted. Such a word is never passed over. relevance: their weighted mean, times the square root of
-- the share of the text that was found, times 0.8 to 1 by the explanation's score. The 2,000 features that fit best by words are considered.
-- found_in: up to three reasons, the strongest first, with the share of the feature's strongest windows that peak on a token, soon or right after it or right before it, or what it adds to
-- the token's logit and the token's rank among those that it promotes.

WITH asked AS MATERIALIZED (
    SELECT i, word,
           CASE WHEN word IN ('news', 'these') THEN word
                WHEN regexp_matches(word, '^(brown|calor|cook|hipp|mov|prair|rook|self|smooth|zomb)ies$') THEN word[:-2]
                WHEN length(word) > 4 AND word LIKE '%ies' THEN word[:-4] || 'y'
                WHEN length(word) > 4 AND word LIKE '%sis' THEN word[:-3]
                WHEN regexp_matches(word, '(ss|us|is)$') THEN word
                WHEN length(word) > 4 AND regexp_matches(word, '(s|x|z|ch|sh)es$') OR length(word) > 5 AND word LIKE '%oes' THEN word[:-3]
                WHEN length(word) > 3 AND regexp_matches(word, '(s|x|z|ch|sh)e$') OR length(word) > 4 AND word LIKE '%oe' THEN word[:-2]
                WHEN length(word) > 6 AND regexp_matches(word, '[aeiouy].*ings$') THEN word[:-5]
                WHEN length(word) > 5 AND regexp_matches(word, '[aeiouy].*ing$') THEN word[:-4]
                WHEN length(word) > 3 AND word LIKE '%s' THEN word[:-2]
                ELSE word END AS stem,
           if(regexp_matches(word, '(e|^.{1,3}sis)$'), word, stem) AS part,  -- what words that hold it have: cas of case is in castle
           stands IS NULL AND word IN (
               'a', 'about', 'an', 'and', 'are', 'as', 'at', 'be', 'been', 'being', 'by', 'did', 'do', 'does', 'feature', 'features', 'for', 'from', 'had',
               'has', 'have', 'how', 'if', 'in', 'into', 'is', 'it', 'its', 'of', 'on', 'or', 'than', 'that', 'the', 'their', 'then', 'these', 'they', 'this',
               'those', 'to', 'token', 'tokens', 'was', 'were', 'what', 'when', 'where', 'which', 'who', 'whose', 'with', 'word', 'words'
           ) AS is_passed_over,
           word IN (SELECT split_part(pair, ' ', 1) FROM (SELECT unnest($glossary::VARCHAR[]) AS pair) WHERE split_part(pair, ' ', 3) = '+') AS in_phrase, stands
    FROM (
        SELECT p.word, 4 * i + coalesce(list_position(['here', 'before', 'next'], stands), 0) AS i, stands  -- a word may be asked for in several places
        FROM (SELECT unnest(parts) AS word, generate_subscripts(parts, 1) AS i FROM (SELECT list_filter(parts, lambda part, n: list_position(parts, part) = n)[:32] AS parts
              FROM (SELECT if(list_contains(known, whole), known, regexp_extract_all(  -- of ASCII alone by a pattern that takes 5 ms less to compile
                        said, if(said ~ '[\x01-\x7f]*', '\w+|[^\s\w]+', '[\p{L}\p{M}\p{N}_]+|[^\s\p{L}\p{M}\p{N}_]+'))) AS parts
              FROM (SELECT strip_accents(lower(regexp_replace($text::VARCHAR, '([^\s!-/:-@\[-`{-~])([''’]([sS]\b)?|[!,.:;?]+(\s|$)|[,;]+)', '\1 ', 'g'))) AS said,
                           trim(strip_accents(lower($text::VARCHAR))) AS whole,
                           (SELECT list(word ORDER BY word) FROM word_forms WHERE $text::VARCHAR ~ '(?s).*[^\w\s].*' AND word IN (
                                trim(strip_accents(lower($text::VARCHAR))),
                                trim(strip_accents(lower($text::VARCHAR)), ' !"#$%&()*+,-./:;<=>?@[\]^`{|}~'))) AS known)))) AS p
        LEFT JOIN (SELECT split_part(said, ' ', 1) AS word, split_part(said, ' ', 2) AS stands FROM (SELECT unnest($order::VARCHAR[]) AS said)) AS o USING (word)
        WHERE stands IS DISTINCT FROM '-'
    )
    QUALIFY NOT is_passed_over OR bool_and(is_passed_over) OVER ()
), alike AS MATERIALIZED (
    SELECT a.i, f.word, f.word_hash,
           if(a.in_phrase, 0.5, 1) * CASE WHEN f.word = a.word THEN 1 WHEN f.stem = a.stem THEN 0.9
                                          WHEN starts_with(f.word, a.part) THEN 0.7 * length(a.part) / length(f.word)
                                          ELSE 0.4 * length(a.part) / length(f.word) END AS likeness, in_phrase AS whole,
           false AS translated, NULL AS language
    FROM word_forms AS f
    JOIN asked AS a ON f.word = a.word OR f.stem = a.stem OR ((length(a.part) > 2 OR a.part > '~') AND contains(f.word, a.part))
    UNION ALL
    SELECT a.i, f.word, f.word_hash, -min(g.n), bool_or(split_part(g.pair, ' ', 3) IN ('+', '=')), bool_or(split_part(g.pair, ' ', 3) = '~'),
           min(nullif(split_part(g.pair, ' ', 4), ''))  -- below 0: by the glossary, the first in it first
    FROM (SELECT unnest($glossary::VARCHAR[]) AS pair, generate_subscripts($glossary::VARCHAR[], 1) AS n) AS g
    JOIN asked AS a ON a.word = split_part(g.pair, ' ', 1)
    JOIN (SELECT word, word_hash, stem AS form FROM word_forms UNION ALL SELECT word, word_hash, word FROM word_forms WHERE word <> stem) AS f
        ON f.form = split_part(g.pair, ' ', 2)
    GROUP BY a.i, f.word, f.word_hash
), spoken AS MATERIALIZED (  -- languages with which text is labelled
    SELECT w.dict_id, f.word AS language
    FROM words AS w JOIN word_forms AS f USING (word_hash)
    WHERE f.word IN (SELECT DISTINCT language FROM alike) AND len(w.labels) > 0
), literal AS MATERIALIZED (
    SELECT w.dict_id, l.i, l.word, l.word_hash, w.place, l.likeness, l.whole, l.translated, w.share, coalesce(w.reaches, true) AS reaches
    FROM words AS w JOIN alike AS l USING (word_hash)
    WHERE ($dict_id::VARCHAR IS NULL OR w.dict_id = $dict_id::VARCHAR) AND (l.likeness > 0 OR w.share < 0.9 AND coalesce(w.reaches, true))
      AND (l.language IS NULL OR (w.dict_id, l.language) IN (FROM spoken))
    QUALIFY row_number() OVER (PARTITION BY w.dict_id, l.i, l.likeness < 0 ORDER BY l.likeness DESC, l.word) <= if(l.likeness < 0, 192, 30)
        AND (l.likeness < 0 OR l.likeness >= 0.5 * max(l.likeness) OVER (PARTITION BY w.dict_id, l.i))
), weighted AS MATERIALIZED (  -- d: the dictionary as a number, by which features are grouped sooner than by its name
    SELECT *, weight / sum(weight) OVER (PARTITION BY dict_id, stands) / count(DISTINCT coalesce(stands, '')) OVER (PARTITION BY dict_id) AS part, dense_rank() OVER (ORDER BY dict_id) AS d
    FROM (
        SELECT s.dict_id, a.i, any_value(a.word) AS word, max(l.likeness) AS best, min(l.likeness) < 0 AND best < 0.9 AS by_glossary,
               any_value(a.stands) AS stands,
               CASE WHEN best IS NULL THEN 9
                    WHEN by_glossary THEN greatest(1.4, -ln(least(1, sum(l.share) FILTER (l.likeness < 0))))
                    ELSE least(if(bool_or(l.reaches AND l.likeness > 0), 99, 3), greatest(0.05, -ln(arg_min(l.share, (-l.likeness, l.word))))) END AS weight,
               coalesce(bool_or(l.likeness >= 0.9 AND l.place % 16777216 < s.n_vectors), false) AS has_vector,
               max(-ln(l.share)) FILTER (l.likeness < 0) AS rarest, any_value(s.mean_length) AS mean_length,
               any_value(s.mean_effect) AS mean_effect, any_value(s.n_vectors) AS n_vectors
        FROM word_statistics AS s CROSS JOIN asked AS a LEFT JOIN literal AS l ON l.dict_id = s.dict_id AND l.i = a.i
        WHERE ($dict_id::VARCHAR IS NULL OR s.dict_id = $dict_id::VARCHAR)
        GROUP BY s.dict_id, a.i
        QUALIFY rarest IS NOT NULL OR any_value(a.stands) IS NOT NULL OR weight >= 0.3 * max(if(best IS NULL, 0, weight)) OVER (PARTITION BY s.dict_id)
            AND (weight >= 1.4 OR max(if(best IS NULL, 0, weight)) OVER (PARTITION BY s.dict_id) < 1.4)
    )
), origins AS MATERIALIZED (  -- those words with a vector which are most like the words asked for
    SELECT d, i, best, arg_min((l.place, l.word_hash), (-l.likeness, l.word)) AS word
    FROM weighted JOIN literal AS l USING (dict_id, i)
    WHERE best >= 0.9 AND l.likeness > 0 AND l.place % 16777216 < n_vectors
    GROUP BY ALL
), neighbours AS (  -- found by a few hashes, which filter exactly: lists are unpacked wherever a place might be
    SELECT d, i, o.word[1] // 16777216 * 16777216 + unnest(w.neighbours[:cap]) AS place,
           0.6 * best * (unnest(w.nearness[:cap])::DOUBLE - mean) / nullif(1 - mean, 0) AS likeness
    FROM (SELECT *, list_avg(nearness::DOUBLE[]) AS mean FROM words WHERE word_hash IN (SELECT word[2] FROM origins)) AS w JOIN origins AS o ON w.place = o.word[1],
         (SELECT greatest(8, least(48, 96 // greatest(1, count(*)))) AS cap FROM asked)
), forms AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY d, i, f.word) AS form, n.*, dict_id, f.word,
           if(likeness < if(whole, 0.45, 0.9) OR NOT literal, if(glossary, 'glossary: ''', 'near ''') || asked || '''', NULL) AS near,
           w.tokens, w.labels, md5_number_lower(dict_id || ' ' || f.word) AS place_said
    FROM (
        SELECT d, i, place, any_value(a.word) AS asked, max(n.likeness) < 0 AS glossary, bool_or(literal) AS literal, bool_or(whole) AS whole,
               max(if(n.likeness > 0, n.likeness,
                      CASE WHEN whole THEN 0.85 WHEN translated THEN 0.6 WHEN has_vector THEN 0.2 ELSE 0.5 END * greatest(0.5, least(1, -2 * ln(n.share) / rarest)))) AS likeness
        FROM (SELECT d, i, place, likeness, likeness > 0 AS literal, whole, translated, share FROM literal JOIN weighted USING (dict_id, i)
              UNION ALL SELECT *, false, false, false, NULL FROM neighbours WHERE likeness > 0) AS n
        JOIN weighted AS a USING (d, i)
        GROUP BY ALL
    ) AS n JOIN words AS w USING (place) JOIN word_forms AS f USING (word_hash)  -- whose words cost less to unpack
), token_forms AS MATERIALIZED (
    SELECT d, i, any_value(of_dictionary) + (token & 67108863)::UBIGINT AS place, 0 AS role, token, max(likeness) AS likeness,
           arg_max(form, likeness - 1e-9 * form) AS form
    FROM (SELECT d, i, form, likeness, md5_number_lower(dict_id) // 268435456 * 268435456 AS of_dictionary, unnest(tokens) AS token FROM forms)
    GROUP BY d, i, token
), token_places AS (
    FROM token_forms
    UNION ALL
    SELECT token_forms.* REPLACE (place + beyond AS place, other AS role)
    FROM token_forms JOIN weighted USING (d, i), (VALUES (1, 67108864::UBIGINT, NULL), (2, 134217728::UBIGINT, NULL), (3, 201326592::UBIGINT, 'before'),
         (4, 234881024::UBIGINT, 'next')) AS roles(other, beyond, where_it_stands)
    WHERE likeness >= 0.5 AND (where_it_stands IS NULL OR where_it_stands = stands)
), said AS (
    SELECT f.d, e.layer, e.feature, f.i, max(f.likeness) AS likeness, arg_max(f.form, f.likeness - 1e-9 * f.form) AS form,
           sum(e.n * f.likeness) / max(f.likeness) AS n, any_value(e.length) AS length
    FROM explanation_words AS e JOIN forms AS f ON e.place = f.place_said
    WHERE $layer::INTEGER IS NULL OR e.layer = $layer::INTEGER
    GROUP BY ALL
), touched AS (  -- role and token of a row are those of its place, and not read
    SELECT f.d, t.layer, t.feature, f.i, f.role, sum(t.weight * f.likeness) AS total,
           max(t.weight * f.likeness) AS best, arg_max(f.token, t.weight * f.likeness - 1e-9 * f.token) AS token,
           arg_max(t.weight, t.weight * f.likeness - 1e-9 * f.token) AS weight, arg_max(t.rank, t.weight * f.likeness - 1e-9 * f.token) AS rank,
           arg_max(f.form, t.weight * f.likeness - 1e-9 * f.token) AS form
    FROM token_features AS t JOIN token_places AS f ON t.place = f.place
    WHERE t.weight > 0 AND ($layer::INTEGER IS NULL OR t.layer = $layer::INTEGER)
    GROUP BY ALL
), found AS MATERIALIZED (
    SELECT d, layer, feature, i, a.part, 'explanation' AS field, form, NULL AS token, NULL AS weight, NULL AS rank, NULL AS label, stands,
           if(stands IN ('before', 'next'), 0.2, 0.8) * likeness * n / (n + 1.2 * (0.25 + 0.75 * length / a.mean_length)) AS strength
    FROM said JOIN weighted AS a USING (d, i)
    UNION ALL
    SELECT d, layer, feature, i, a.part, ['fires on', 'after', 'promotes', 'right after', 'right before'][role + 1], form, token, t.weight, t.rank, NULL, stands,
           CASE WHEN stands = 'before' THEN CASE role WHEN 0 THEN -0.75 * total WHEN 1 THEN 0.75 * t.best WHEN 3 THEN total END
                WHEN stands = 'next' THEN CASE role WHEN 0 THEN -0.75 * total WHEN 2 THEN 0.75 * total / (total + 2 * a.mean_effect) WHEN 4 THEN total END
                WHEN role = 0 THEN 1.5 * total
                WHEN stands IS NULL THEN if(role = 1, 1.25 * t.best, 0.4 * t.best / (t.best + a.mean_effect)) END
    FROM touched AS t JOIN weighted AS a USING (d, i)
    UNION ALL
    SELECT d, l.layer, l.feature, i, a.part, 'text labelled', f.form, NULL, NULL, NULL, label, stands,
           f.likeness * (l.n_windows / l.n_labelled - l.of_layer) / nullif(1 - l.of_layer, 0)
    FROM window_labels AS l
    JOIN (SELECT d, dict_id, i, form, least(1, likeness * if(whole, 2, 1)) AS likeness, unnest(labels) AS label FROM forms
          WHERE literal AND likeness >= if(whole, 0.45, 0.9)) AS f USING (dict_id, label)
    JOIN weighted AS a USING (d, i)
    WHERE l.of_layer < 1 AND l.n_windows > (0.25 + 0.75 * l.of_layer) * l.n_labelled AND ($layer::INTEGER IS NULL OR l.layer = $layer::INTEGER)
    UNION ALL
    SELECT a.d, o.layer, o.feature, i, a.part, 'own label', NULL, NULL, NULL, NULL, o.text, a.stands, 2
    FROM annotations AS o JOIN asked AS q ON if(length(q.part) > 2 OR q.part > '~' OR NOT q.word ~ '\w+', contains(strip_accents(lower(o.text)), q.part),
                       contains(' ' || translate(strip_accents(lower(o.text)), '!"#$%&''()*+,-./:;<=>?@[\]^`{|}~', repeat(' ', 32)) || ' ', ' ' || q.word || ' ')) JOIN weighted AS a USING (dict_id, i)
    WHERE o.kind = 'label' AND o.feature IS NOT NULL AND ($layer::INTEGER IS NULL OR o.layer = $layer::INTEGER)
), candidates AS MATERIALIZED (
    SELECT d, layer, feature, if(bool_or(placed), sum(strength * part) * sum(least(1, strength) * part), if(count(*) > 1, sum(strength * part) * sqrt(sum(least(1, strength) * part)),
                                 sum(alone * part) * sqrt(sum(least(1, alone) * part)))) AS relevance
    FROM (SELECT d, layer, feature, i, part, stands IS NOT NULL AS placed, greatest(0, sum(strength)) AS strength,
                 greatest(0, sum(if(field = 'after' AND stands IS NULL, 0.32, 1) * strength)) AS alone FROM found GROUP BY ALL HAVING sum(abs(strength)) > 0)
    GROUP BY ALL
    ORDER BY round(relevance, 6) DESC, d, layer, feature
    LIMIT 2000
), ranked AS MATERIALIZED (
    SELECT c.d, dict_id, a.model_id, layer, feature, b.text, b.score, b.explainer, f.density, f.max_activation, f.dead,
           round(c.relevance * (0.8 + 0.2 * coalesce(b.score, 0)), 6) AS relevance
    FROM candidates AS c
    JOIN (SELECT DISTINCT d, dict_id, model_id FROM weighted LEFT JOIN dictionaries USING (dict_id)) AS a USING (d)
    JOIN (FROM features WHERE feature IN (SELECT feature FROM candidates)) AS f USING (dict_id, layer, feature)
    LEFT JOIN (FROM best_explanations WHERE place IN (SELECT feature::BIGINT * 65536 + layer FROM candidates)) AS b USING (dict_id, layer, feature)
    WHERE c.relevance > 0 AND ($min_score::DOUBLE IS NULL OR b.score >= $min_score::DOUBLE) AND ($alive::BOOLEAN IS NOT TRUE OR NOT f.dead)
    ORDER BY f.dead, relevance DESC, c.d, layer, feature
    LIMIT $limit::BIGINT
), reasons AS MATERIALIZED (
    SELECT f.*, r.model_id, f.strength * f.part * if(f.field = 'after' AND stands IS NULL AND min(f.i) OVER of_feature = max(f.i) OVER of_feature, 0.32, 1) AS counts
    FROM found AS f JOIN ranked AS r USING (d, layer, feature) WHERE f.strength > 0 WINDOW of_feature AS (PARTITION BY d, layer, feature)
)
SELECT r.dict_id, r.layer, r.feature, r.relevance,
       array_to_string(list(f.field || ' ''' || coalesce(f.label, v.string, o.word) || ''''
            || coalesce(' (' || nullif(concat_ws(', ', o.near,
                   CASE WHEN f.field IN ('fires on', 'after', 'right after', 'right before') THEN round(100 * f.weight)::INTEGER || ' % of its strongest windows'
                        WHEN f.field = 'promotes' THEN printf('%+.2g', f.weight::DOUBLE) || coalesce(', rank ' || f.rank, '') END), '') || ')', '')
            ORDER BY round(f.counts, 9) DESC, f.field, f.i, f.label)[:3], '; ') AS found_in,
       any_value(r.text) AS text, any_value(r.score) AS score, any_value(r.explainer) AS explainer,
       any_value(r.density) AS density, any_value(r.max_activation) AS max_activation, r.dead
FROM ranked AS r
JOIN reasons AS f ON f.d = r.d AND f.layer = r.layer AND f.feature = r.feature
LEFT JOIN forms AS o ON o.form = f.form
LEFT JOIN (FROM vocabulary WHERE token IN (SELECT token FROM reasons)) AS v ON v.model_id = f.model_id AND v.token = f.token
GROUP BY r.dict_id, r.layer, r.feature, r.relevance, r.dead
ORDER BY r.dead, r.relevance DESC, r.dict_id, r.layer, r.feature
