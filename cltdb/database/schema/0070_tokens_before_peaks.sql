-- The tokens that stand before a feature's peaks: a feature that fires on `is` where the text says "the opposite of clean is" was found by none of
-- the other words. Rows of role follows come with the next load.

COMMENT ON TABLE token_features IS 'One row per token and feature that peaks on it, peaks soon after it or promotes it: which features belong to a token. Key: dict_id, layer, token, role, feature. Replaced together: dict_id, layer. Derived from: windows, harvested_text, features. Export folders: dict_id.';
COMMENT ON COLUMN token_features.role IS 'One of fires_on, follows or promotes. fires_on: strongest windows of the feature (band top) peak on the token; follows: the token is among the eight before the peak in at least half of the strongest windows (the first 64), in two or more, and twice as often as in the strongest windows of the layer''s features, one of each; at most five tokens of a feature, those with the largest weight * ln(weight / that share); promotes: the token is among features.top_logits.';
COMMENT ON COLUMN token_features.weight IS 'fires_on: share of the feature''s strongest windows (band top) that peak on the token, from 0 to 1; follows: share of the first 64 of them that have it among the eight tokens before the peak, from 0.5 to 1; promotes: what the feature adds to the token''s logit, as in features.top_logits.';
COMMENT ON COLUMN token_features.rank IS 'promotes: place of the token in features.top_logits, 1 first; NULL of rows made by an earlier cltdb, until the next load. fires_on, follows: NULL.';
COMMENT ON COLUMN token_features.place IS 'One number for dict_id, role and token, by which the rows of a few tokens are found without reading the others: the upper 36 bits are those of md5_number_lower(dict_id), the next is 1 where the role is promotes, the one after it where it is follows, the lower 26 are the token.';

INSERT INTO stale_groups BY NAME SELECT DISTINCT 'token_features' AS derived, dict_id, layer, 0 AS next_feature, '' AS mark FROM features
ON CONFLICT DO UPDATE SET next_feature = 0, mark = '';
