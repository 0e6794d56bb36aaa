-- What language models were asked, the exact rule beside an explanation, and scores by more scorers.

CREATE TABLE requests (
    dict_id VARCHAR NOT NULL,
    request_id VARCHAR NOT NULL,
    purpose VARCHAR,
    model VARCHAR,
    prompt_tokens BIGINT,
    completion_tokens BIGINT,
    cost_usd DOUBLE,
    seconds DOUBLE,
    attempts INTEGER,
    status VARCHAR,
    error VARCHAR,
    reused BOOLEAN,
    created_at TIMESTAMP,
    artifact_key VARCHAR
);

COMMENT ON TABLE requests IS 'One row per request to a language model that explanations or scores of a dictionary rest on. Key: dict_id, request_id. Replaced together: dict_id, request_id. Refers to: dictionaries (dict_id). Export folders: dict_id.';
COMMENT ON COLUMN requests.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN requests.request_id IS 'SHA-256 of what was asked: server, model, messages and parameters.';
COMMENT ON COLUMN requests.purpose IS 'What it was asked for: explain: and the explainer''s name, or the scorer''s name.';
COMMENT ON COLUMN requests.model IS 'litellm model that was asked.';
COMMENT ON COLUMN requests.prompt_tokens IS 'Tokens sent (at least 0), as the provider counts them.';
COMMENT ON COLUMN requests.completion_tokens IS 'Tokens received (at least 0).';
COMMENT ON COLUMN requests.cost_usd IS 'Cost in US dollars (at least 0) when it was paid: NULL where it is unknown, 0 where it is known to be free.';
COMMENT ON COLUMN requests.seconds IS 'Duration of the attempt that was answered, in seconds (at least 0).';
COMMENT ON COLUMN requests.attempts IS 'How often it was sent until it was answered or given up (at least 0).';
COMMENT ON COLUMN requests.status IS 'One of ok, unusable, failed or skipped_budget. unusable: a complete answer that was not of the form that was asked for; another request shows it to the model and says what is wrong. failed: no answer came.';
COMMENT ON COLUMN requests.reused IS 'Whether another artifact had paid for the answer.';
COMMENT ON COLUMN requests.error IS 'Why there is no usable answer, in one line; NULL where there is one.';
COMMENT ON COLUMN requests.created_at IS 'When it was answered or given up (UTC).';
COMMENT ON COLUMN requests.artifact_key IS 'Artifact that brought the row: the directory <workspace>/<stage>/<artifact_key>.';

ALTER TABLE explanations ADD COLUMN rule VARCHAR;
COMMENT ON COLUMN explanations.rule IS 'JSON of the exact rule behind the text, where rules or lists of tokens explained: clauses of tokens and conditions, or the tokens that it promotes. NULL otherwise.';
COMMENT ON COLUMN explanations.explainer IS 'Who explained: rules, llm, llm_contrastive, llm_graph, llm_output, single_token, top_logits, or the name of labels that were read from a file. A name that begins with baseline: is a control: baseline:shuffled, baseline:other_feature, baseline:top_tokens; and baseline:untrained, baseline:neurons and baseline:sparse_neurons, texts and scores of a feature of another dictionary, of the same layer and nearly the same density (detail of scores: its number there, unit).';
COMMENT ON COLUMN explanations.model IS 'litellm model that wrote it; cltdb-rules/v1 for the rule explainer; NULL where no model did.';

COMMENT ON COLUMN scores.explainer IS 'Whose explanation was scored, as in explanations.explainer.';
COMMENT ON COLUMN scores.score IS 'From detection and fuzzing: balanced accuracy, chance 0.5. From pick_one, intruder and intervention: accuracy among five, chance 0.2. From simulation: correlation with the true activations. NULL where it could not be measured. In all (-1 to 1).';
COMMENT ON COLUMN scores.n IS 'Questions judged (at least 0): windows, or groups of five.';
COMMENT ON COLUMN scores.n_failed IS 'Questions without a usable judgement (at least 0); n does not count them.';
COMMENT ON COLUMN scores.ci_low IS 'Lower end of the score''s 95 % confidence interval (-1 to 1).';
COMMENT ON COLUMN scores.ci_high IS 'Upper end of that interval (-1 to 1).';
COMMENT ON COLUMN scores.detail IS 'JSON object with the parts of the score, such as shares of right answers, the judge, and what the judging took.';
COMMENT ON COLUMN best_explanations.explainer IS 'Who wrote it, as in explanations.explainer.';
