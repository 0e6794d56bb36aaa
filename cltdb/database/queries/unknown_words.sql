-- Words of a text that lead to no feature: no word of the database, and no own label of a user, is one, begins with it, holds it or is an instance of it.
-- Grain: one row per word.
-- Order: as in the text.
-- Reads: annotations, word_forms, words.
-- Parameters:
--   $text: text            the text
--   $dict_id: text = NULL  only this dictionary
--   $glossary: texts = NULL  as of query feature_search
--   $order: texts = NULL  as of query feature_search
-- Example: -p text="capitol cities"
-- spelled_like: up to three words of the database that are spelled like it.

WITH asked AS (
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
           if(regexp_matches(word, '(e|^.{1,3}sis)$'), word, stem) AS part  -- what words that hold it have: cas of case is in castle
    FROM (
        SELECT unnest(parts) AS word, generate_subscripts(parts, 1) AS i
        FROM (SELECT list_filter(parts, lambda part, n: list_position(parts, part) = n)[:32] AS parts
              FROM (SELECT if(list_contains(known, whole), known, regexp_extract_all(  -- of ASCII alone by a pattern that takes 5 ms less to compile
                        said, if(said ~ '[\x01-\x7f]*', '\w+|[^\s\w]+', '[\p{L}\p{M}\p{N}_]+|[^\s\p{L}\p{M}\p{N}_]+'))) AS parts
              FROM (SELECT strip_accents(lower(regexp_replace($text::VARCHAR, '([^\s!-/:-@\[-`{-~])([''’]([sS]\b)?|[!,.:;?]+(\s|$)|[,;]+)', '\1 ', 'g'))) AS said,
                           trim(strip_accents(lower($text::VARCHAR))) AS whole,
                           (SELECT list(word ORDER BY word) FROM word_forms WHERE $text::VARCHAR ~ '(?s).*[^\w\s].*' AND word IN (
                                trim(strip_accents(lower($text::VARCHAR))),
                                trim(strip_accents(lower($text::VARCHAR)), ' !"#$%&()*+,-./:;<=>?@[\]^`{|}~'))) AS known)))
    )
), known AS (
    FROM word_forms WHERE $dict_id::VARCHAR IS NULL OR word_hash IN (SELECT word_hash FROM words WHERE dict_id = $dict_id::VARCHAR)
), spoken AS (  -- languages with which text is labelled
    SELECT f.word FROM words AS w JOIN word_forms AS f USING (word_hash)
    WHERE f.word IN (SELECT split_part(unnest($glossary::VARCHAR[]), ' ', 4)) AND len(w.labels) > 0 AND ($dict_id::VARCHAR IS NULL OR w.dict_id = $dict_id::VARCHAR)
), unknown AS (
    SELECT * FROM asked AS a
    WHERE word || ' -' NOT IN (SELECT unnest($order::VARCHAR[])) AND word NOT IN (SELECT split_part(pair, ' ', 1) FROM (SELECT unnest($glossary::VARCHAR[]) AS pair)
                       WHERE split_part(pair, ' ', 2) IN (SELECT unnest([word, stem]) FROM known)
                         AND (split_part(pair, ' ', 4) = '' OR split_part(pair, ' ', 4) IN (FROM spoken)))
      AND NOT EXISTS (FROM known AS k WHERE k.word = a.word OR k.stem = a.stem
                      OR ((length(a.part) > 2 OR a.part > '~') AND contains(k.word, a.part)))
      AND NOT EXISTS (FROM annotations AS o WHERE o.kind = 'label' AND o.feature IS NOT NULL AND if(length(a.part) > 2 OR a.part > '~' OR NOT a.word ~ '\w+', contains(strip_accents(lower(o.text)), a.part),
                       contains(' ' || translate(strip_accents(lower(o.text)), '!"#$%&''()*+,-./:;<=>?@[\]^`{|}~', repeat(' ', 32)) || ' ', ' ' || a.word || ' '))
                      AND ($dict_id::VARCHAR IS NULL OR o.dict_id = $dict_id::VARCHAR))
), spelled AS (
    SELECT u.word, k.word AS like_it, jaro_winkler_similarity(k.word, u.word) AS likeness
    FROM unknown AS u JOIN known AS k ON abs(length(k.word) - length(u.word)) < 3
    WHERE likeness > 0.85
)
SELECT u.word, coalesce(list(s.like_it ORDER BY s.likeness DESC, s.like_it) FILTER (s.like_it IS NOT NULL), [])[:3] AS spelled_like
FROM unknown AS u LEFT JOIN spelled AS s USING (word)
GROUP BY u.word
ORDER BY min(u.i)
