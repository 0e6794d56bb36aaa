-- What a search needs of many words, where it needs little of each: it read and tested the hashes, places and shares of all words of all dictionaries
-- for some hundred of them, over 72 dictionaries 70 MB.

CREATE TABLE word_pages (
    dict_id VARCHAR NOT NULL,
    page UTINYINT NOT NULL,
    words BLOB NOT NULL
);

INSERT INTO word_pages
SELECT dict_id, (word_hash >> 56)::UTINYINT AS page,
       unhex(string_agg(hex(word_hash::BIT::BLOB) || hex(place::BIT::BLOB) || hex(if(coalesce(reaches, true), share, -share)::FLOAT::BIT::BLOB), ''
                        ORDER BY word_hash)) AS words
FROM words GROUP BY ALL ORDER BY dict_id, page;

COMMENT ON TABLE word_pages IS 'One row per dictionary and first byte of word_hash that words of it have: where a search finds each word. Made from table words. Key: dict_id, page. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN word_pages.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN word_pages.page IS 'The upper 8 bits of word_hash of its words (0 to 255).';
COMMENT ON COLUMN word_pages.words IS '20 bytes for each of its words, in the order of word_hash: word_hash and place of 8 bytes each and share of 4, as in table words, with the highest byte first; share is negative where the word does not reach features.';
