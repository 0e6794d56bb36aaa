-- Which letters begin the tokens of a model.

CREATE TABLE letter_counts (
    model_id VARCHAR NOT NULL,
    letter VARCHAR NOT NULL,
    tokens BIGINT,
    artifact_key VARCHAR
);

COMMENT ON TABLE letter_counts IS 'One row per model and letter. Key: model_id, letter.';
COMMENT ON COLUMN letter_counts.model_id IS 'Model, as in models.model_id.';
COMMENT ON COLUMN letter_counts.letter IS 'The letter, in lower case.';
COMMENT ON COLUMN letter_counts.tokens IS 'Tokens of the vocabulary that begin with it.';
COMMENT ON COLUMN letter_counts.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

COMMENT ON COLUMN metrics.stage IS 'One of train, evaluate or letters: the stage that measured it.';
