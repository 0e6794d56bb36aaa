-- Embeddings of explanations, for `cltdb search` (docs/database.md). A text is known by its hash, whatever features have it.

CREATE TABLE text_embeddings (
    model VARCHAR NOT NULL,
    text_md5 VARCHAR NOT NULL,
    vector FLOAT[]
);

COMMENT ON TABLE text_embeddings IS 'One row per model of embeddings and text: where in meaning an explanation lies. Asked of the model that database.search.embeddings of cltdb.yaml names. Texts of explanations that were replaced stay. Key: model, text_md5.';
COMMENT ON COLUMN text_embeddings.model IS 'Model of embeddings, with what cltdb.yaml says besides: dimensions, api_base.';
COMMENT ON COLUMN text_embeddings.text_md5 IS 'md5(text) of best_explanations.text.';
COMMENT ON COLUMN text_embeddings.vector IS 'The embedding, scaled to length 1: an inner product of two vectors is their cosine.';
