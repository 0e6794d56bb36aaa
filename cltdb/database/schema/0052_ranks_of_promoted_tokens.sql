-- The rank that a search says of a promoted token: to read it from features.top_logits took a search of a million features a quarter of its time.

ALTER TABLE token_features ADD COLUMN rank USMALLINT;

COMMENT ON COLUMN token_features.rank IS 'promotes: place of the token in features.top_logits, 1 first; NULL of rows made by an earlier cltdb, until the next load. fires_on: NULL.';

INSERT INTO stale_groups BY NAME SELECT DISTINCT 'token_features' AS derived, dict_id, layer, 0 AS next_feature, '' AS mark FROM features
ON CONFLICT DO UPDATE SET next_feature = 0, mark = '';
