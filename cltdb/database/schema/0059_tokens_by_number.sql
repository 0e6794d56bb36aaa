-- The rows of a few tokens are found by one number, as those of words are: DuckDB passes rows over by a join on one column alone. It tells the
-- role, too: windows peak on the neighbours of a word, but of those that are promoted a search wants the word itself. To read all rows of fifty
-- tokens took a search of a million features a quarter of its time. Rows lie by role since then; those that are there do with the next load.

CREATE TABLE with_places (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    token INTEGER NOT NULL,
    role VARCHAR NOT NULL,
    feature INTEGER NOT NULL,
    weight FLOAT,
    rank USMALLINT,
    place UBIGINT
);

INSERT INTO with_places BY NAME
SELECT *, md5_number_lower(dict_id) // 268435456 * 268435456 + if(role = 'promotes', 134217728, 0)::UBIGINT + (token & 134217727)::UBIGINT AS place
FROM token_features;
DROP TABLE token_features;
ALTER TABLE with_places RENAME TO token_features;

COMMENT ON TABLE token_features IS 'One row per token and feature that peaks on it or promotes it: which features belong to a token. Key: dict_id, layer, token, role, feature. Replaced together: dict_id, layer. Derived from: windows, features. Export folders: dict_id.';
COMMENT ON COLUMN token_features.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN token_features.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN token_features.token IS 'Token id, as in vocabulary.token.';
COMMENT ON COLUMN token_features.role IS 'One of fires_on or promotes. fires_on: strongest windows of the feature (band top) peak on the token; promotes: the token is among features.top_logits.';
COMMENT ON COLUMN token_features.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN token_features.weight IS 'fires_on: share of the feature''s strongest windows (band top) that peak on the token, from 0 to 1; promotes: what the feature adds to the token''s logit, as in features.top_logits.';
COMMENT ON COLUMN token_features.rank IS 'promotes: place of the token in features.top_logits, 1 first; NULL of rows made by an earlier cltdb, until the next load. fires_on: NULL.';
COMMENT ON COLUMN token_features.place IS 'One number for dict_id, role and token, by which the rows of a few tokens are found without reading the others: the upper 36 bits are those of md5_number_lower(dict_id), the next is 1 where the role is promotes, the lower 27 are the token.';

INSERT INTO stale_groups BY NAME SELECT DISTINCT 'token_features' AS derived, dict_id, layer, 0 AS next_feature, '' AS mark FROM features
ON CONFLICT DO UPDATE SET next_feature = 0, mark = '';
