-- Stems of words by the rules of cltdb.database.stems: plurals that did not meet their words do (houses and house, buildings and building, heroes and
-- hero, analyses and analysis), and news is no plural of new.

CREATE TEMP MACRO stem_of(word) AS CASE WHEN word IN ('news', 'these') THEN word
     WHEN regexp_matches(word, '^(brown|calor|cook|hipp|mov|prair|rook|self|smooth|zomb)ies$') THEN word[:-2]
     WHEN length(word) > 4 AND word LIKE '%ies' THEN word[:-4] || 'y'
     WHEN length(word) > 4 AND word LIKE '%sis' THEN word[:-3]
     WHEN regexp_matches(word, '(ss|us|is)$') THEN word
     WHEN length(word) > 4 AND regexp_matches(word, '(s|x|z|ch|sh)es$') OR length(word) > 5 AND word LIKE '%oes' THEN word[:-3]
     WHEN length(word) > 3 AND regexp_matches(word, '(s|x|z|ch|sh)e$') OR length(word) > 4 AND word LIKE '%oe' THEN word[:-2]
     WHEN length(word) > 6 AND regexp_matches(word, '[aeiouy].*ings$') THEN word[:-5]
     WHEN length(word) > 5 AND regexp_matches(word, '[aeiouy].*ing$') THEN word[:-4]
     WHEN length(word) > 3 AND word LIKE '%s' THEN word[:-2]
     ELSE word END;

UPDATE words SET stem = stem_of(word) WHERE stem <> stem_of(word);
UPDATE word_forms SET stem = stem_of(word) WHERE stem <> stem_of(word);

DROP MACRO temp.stem_of;
