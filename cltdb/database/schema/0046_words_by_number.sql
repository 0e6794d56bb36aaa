-- The rows of a word in the explanations of a dictionary are found by one number: DuckDB passes rows over by a join on one column alone, and a word
-- that is near in one dictionary may be in many explanations of another.

ALTER TABLE explanation_words ADD COLUMN place UBIGINT;
UPDATE explanation_words SET place = md5_number_lower(dict_id || ' ' || word);

COMMENT ON COLUMN explanation_words.place IS 'md5_number_lower(dict_id || '' '' || word): one number for both, by which the rows of a few words are found without reading the others.';
