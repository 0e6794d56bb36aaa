-- What `cltdb search` reads: the words of explanations, the labels of windows, what is known of each word. Of windows only the strongest say
-- which tokens a feature fires on; those of the other bands are samples of all its activations.

CREATE TABLE explanation_words (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    word VARCHAR NOT NULL,
    feature INTEGER NOT NULL,
    n INTEGER,
    length INTEGER
);

COMMENT ON TABLE explanation_words IS 'One row per word and feature whose best explanation has it. Key: dict_id, layer, word, feature. Replaced together: dict_id, layer. Derived from: explanations, scores. Export folders: dict_id.';
COMMENT ON COLUMN explanation_words.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN explanation_words.layer IS 'Layer that the feature reads from, 0 first.';
COMMENT ON COLUMN explanation_words.word IS 'A run of letters and digits, in lower case and without accents.';
COMMENT ON COLUMN explanation_words.feature IS 'Index of the feature in its layer, 0 first.';
COMMENT ON COLUMN explanation_words.n IS 'How often the explanation has the word.';
COMMENT ON COLUMN explanation_words.length IS 'Words of the explanation.';

ALTER TABLE window_labels ADD COLUMN of_layer FLOAT;

COMMENT ON COLUMN window_labels.of_layer IS 'Share of the label in the windows of all features of the layer that have one (0 to 1).';

CREATE TABLE words (
    dict_id VARCHAR NOT NULL,
    word VARCHAR NOT NULL,
    stem VARCHAR NOT NULL,
    share FLOAT,
    tokens INTEGER[],
    labels VARCHAR[],
    vector FLOAT[80]
);

COMMENT ON TABLE words IS 'One row per word that leads to features of a dictionary: words of explanations, of the harvest''s text, of tokens and of labels. Made from the dictionary''s other rows after they were loaded. Key: dict_id, word. Refers to: dictionaries (dict_id). Export folders: dict_id.';
COMMENT ON COLUMN words.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN words.word IS 'A run of letters and digits, or of other signs, in lower case and without accents.';
COMMENT ON COLUMN words.stem IS 'The word without the ending of an English plural or of -ing.';
COMMENT ON COLUMN words.share IS 'How common the word is: the larger of its share in explanations and in sentences of the harvest''s text (0 to 1).';
COMMENT ON COLUMN words.tokens IS 'Tokens that stand for the word. The words number, digit and punctuation have the tokens of this kind.';
COMMENT ON COLUMN words.labels IS 'Labels of text that the word names. A label that is an ISO 639-1 code is also named by its language.';
COMMENT ON COLUMN words.vector IS 'The word in truncated SVDs of the TF-IDF matrix of words and documents (explanations, sentences of the harvest''s text): 16 and 64 dimensions, each scaled to length sqrt(1/2). An inner product of two vectors is the mean of both cosines. NULL where too little is known of the word.';

CREATE TABLE word_statistics (
    dict_id VARCHAR NOT NULL,
    mean_length DOUBLE,
    mean_effect DOUBLE,
    made_from VARCHAR
);

COMMENT ON TABLE word_statistics IS 'One row per dictionary whose words are in table words. Key: dict_id. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN word_statistics.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN word_statistics.mean_length IS 'Mean number of words of an explanation.';
COMMENT ON COLUMN word_statistics.mean_effect IS 'Mean logit effect on the tokens that features promote.';
COMMENT ON COLUMN word_statistics.made_from IS 'Digest of the loaded parts that the words were made from.';

INSERT INTO stale_groups
SELECT DISTINCT 'explanation_words', dict_id, layer FROM explanations
UNION SELECT DISTINCT 'window_labels', dict_id, layer FROM windows WHERE label IS NOT NULL
UNION SELECT DISTINCT 'token_features', dict_id, layer FROM features
ON CONFLICT DO NOTHING;

COMMENT ON COLUMN token_features.role IS 'One of fires_on or promotes. fires_on: strongest windows of the feature (band top) peak on the token; promotes: the token is among features.top_logits.';
COMMENT ON COLUMN token_features.weight IS 'fires_on: share of the feature''s strongest windows (band top) that peak on the token, from 0 to 1; promotes: what the feature adds to the token''s logit, as in features.top_logits.';
