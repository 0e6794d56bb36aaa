-- By which words features can be found: a search in many dictionaries compares with these alone.

ALTER TABLE words ADD COLUMN reaches BOOLEAN;

COMMENT ON COLUMN words.reaches IS 'Whether it is a word of an explanation, or tokens that features fire on or promote: as a neighbour in meaning it leads to features. NULL of words made by an earlier cltdb.';
