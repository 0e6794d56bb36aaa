-- The logit lens of features over chosen tokens: what each feature writes to their logits directly, by weights alone.
-- Grain: one row per layer, feature, token.
-- Order: layer, feature, then as in harvest.lens_tokens; a token without a value after the others.
-- Reads: dictionaries, features, vocabulary.
-- Parameters:
--   $dict_id: text            the dictionary
--   $layer: integer = NULL    only this layer
--   $feature: integer = NULL  only the feature of this index
--   $tokens: texts = NULL     texts of tokens as in vocabulary.string, a list; without it all tokens of harvest.lens_tokens
--   $limit: integer = 100000  at most this many rows
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=3 -p feature=222 -p tokens='["40", "41"]'
-- value: what a unit of activation adds to the token's logit, less the mean over the vocabulary, before the final norm divides; NULL:
-- the token is not among harvest.lens_tokens. `cltdb.logit_lens` computes it for any tokens.

WITH words AS (
    SELECT token, string FROM vocabulary
    WHERE model_id = (SELECT model_id FROM dictionaries WHERE dict_id = $dict_id::VARCHAR)
), counted AS (  -- each gives a row or more
    SELECT layer, feature, coalesce(len(list_distinct($tokens::VARCHAR[])), len(lens_logits)) AS n FROM features
    WHERE dict_id = $dict_id::VARCHAR AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
      AND ($feature::INTEGER IS NULL OR feature = $feature::INTEGER) AND ($tokens::VARCHAR[] IS NOT NULL OR len(lens_logits) > 0)
    ORDER BY layer, feature
    LIMIT $limit::BIGINT
), needed AS MATERIALIZED (  -- no more than fill the rows
    SELECT layer, feature FROM counted
    QUALIFY coalesce(sum(n) OVER (ORDER BY layer, feature ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) < $limit::BIGINT
), found AS MATERIALIZED (
    SELECT layer, feature, lens_logits FROM features SEMI JOIN needed USING (layer, feature) WHERE dict_id = $dict_id::VARCHAR
), stored AS (
    SELECT layer, feature, generate_subscripts(lens_logits, 1) AS place, unnest(lens_logits) AS entry FROM found
), named AS (
    SELECT f.layer, f.feature, w.token, asked.string, s.entry.value AS value, s.place
    FROM found AS f, (SELECT DISTINCT unnest($tokens::VARCHAR[]) AS string) AS asked
    LEFT JOIN words AS w ON w.string = asked.string
    LEFT JOIN stored AS s ON s.layer = f.layer AND s.feature = f.feature AND s.entry.token = w.token
    UNION ALL
    SELECT s.layer, s.feature, s.entry.token, w.string, s.entry.value, s.place
    FROM stored AS s
    LEFT JOIN words AS w ON w.token = s.entry.token
    WHERE $tokens::VARCHAR[] IS NULL
)
SELECT layer, feature, token, string, value
FROM named
ORDER BY layer, feature, place NULLS LAST, token, string
LIMIT $limit::BIGINT
