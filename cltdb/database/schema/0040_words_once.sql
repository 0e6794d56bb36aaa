-- What a search compares the words of a text with, laid out for many dictionaries: each word once, and the vectors of words that lead to features
-- one after the other. To go through the words of every dictionary, and through vectors that lie scattered, took a search 7 ms per dictionary.

CREATE TABLE word_forms (
    word VARCHAR NOT NULL,
    stem VARCHAR NOT NULL,
    word_hash UBIGINT NOT NULL
);

COMMENT ON TABLE word_forms IS 'One row per word of table words, whatever dictionaries have it. Key: word.';
COMMENT ON COLUMN word_forms.word IS 'The word, as in words.word.';
COMMENT ON COLUMN word_forms.stem IS 'The word without the ending of an English plural or of -ing.';
COMMENT ON COLUMN word_forms.word_hash IS 'md5_number_lower(word).';

CREATE TABLE word_vectors (
    dict_id VARCHAR NOT NULL,
    word_hash UBIGINT NOT NULL,
    share FLOAT,
    vector FLOAT[80]
);

COMMENT ON TABLE word_vectors IS 'One row per word of a dictionary that leads to features (words.reaches) and has a vector: the neighbours in meaning of other words are looked for here. Key: dict_id, word_hash. Refers to: words (dict_id, word_hash). Export folders: dict_id.';
COMMENT ON COLUMN word_vectors.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN word_vectors.word_hash IS 'The word, as in words.word_hash.';
COMMENT ON COLUMN word_vectors.share IS 'How common the word is, as in words.share (0 to 1).';
COMMENT ON COLUMN word_vectors.vector IS 'The word''s vector, as in words.vector.';

ALTER TABLE words ADD COLUMN word_hash UBIGINT;
UPDATE words SET word_hash = md5_number_lower(word);

COMMENT ON TABLE words IS 'One row per word that leads to features of a dictionary: words of explanations, of the harvest''s text, of tokens and of labels. Made from the dictionary''s other rows after they were loaded. Key: dict_id, word. Refers to: dictionaries (dict_id), word_forms (word_hash). Export folders: dict_id.';
COMMENT ON COLUMN words.word_hash IS 'md5_number_lower(word), by which the word is found in every dictionary.';

INSERT INTO word_forms SELECT word, any_value(stem), word_hash FROM words GROUP BY word, word_hash ORDER BY word;
INSERT INTO word_vectors
SELECT dict_id, word_hash, share, vector FROM words WHERE reaches IS NOT FALSE AND vector IS NOT NULL ORDER BY dict_id, word;
