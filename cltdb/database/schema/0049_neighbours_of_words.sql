-- The neighbours in meaning of every word, found once. To compare a word with the vectors of all others took half of a search in many dictionaries.
-- Words that are there keep theirs by letters alone until they are made anew, as the next load does.

DROP TABLE word_vectors;

ALTER TABLE words ADD COLUMN place UBIGINT;
ALTER TABLE words ADD COLUMN neighbours USMALLINT[48];
ALTER TABLE words ADD COLUMN nearness FLOAT[48];
UPDATE words SET place = md5_number_lower(dict_id || ' ' || word);

COMMENT ON COLUMN words.place IS 'One number for dict_id and word, by which rows of a few words are found without reading the others: the upper 40 bits are those of md5_number_lower(dict_id), the lower 24 count the words of the dictionary from 0: first those that have a vector and reach features, then the others that have one, each by word.';
COMMENT ON COLUMN words.neighbours IS 'The 48 nearest words in meaning that reach features and are not in every text, the nearest first: the lower 24 bits of their place. Fewer are followed by zeros. NULL where the word has no vector, and of words made by an earlier cltdb.';
COMMENT ON COLUMN words.nearness IS 'How near each of the neighbours is (0 to 1): the square of the inner product of both vectors, at least 0.4, times the ratio of -ln(share) of the neighbour and of the word where the neighbour is commoner. 0 where there is none.';

ALTER TABLE word_statistics ADD COLUMN n_vectors INTEGER;

COMMENT ON COLUMN word_statistics.n_vectors IS 'Words of the dictionary that have a vector (at least 0). NULL of words made by an earlier cltdb.';
