-- What scores cost, in sums: to read it from the details of a million scores took 0.6 CPU seconds each time.

CREATE TABLE score_costs (
    dict_id VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    explainer VARCHAR NOT NULL,
    scorer VARCHAR NOT NULL,
    n_scores BIGINT NOT NULL,
    n_ok BIGINT NOT NULL,
    n_failed_windows BIGINT,
    prompt_tokens BIGINT,
    completion_tokens BIGINT,
    cost_usd DOUBLE,
    n_known_cost BIGINT NOT NULL,
    n_ok_known_cost BIGINT NOT NULL
);

COMMENT ON TABLE score_costs IS 'One row per layer, explainer and scorer: what its scores cost together, as their details say. Key: dict_id, layer, explainer, scorer. Replaced together: dict_id, layer. Derived from: scores. Export folders: dict_id.';
COMMENT ON COLUMN score_costs.dict_id IS 'Dictionary, as in dictionaries.dict_id.';
COMMENT ON COLUMN score_costs.layer IS 'Layer that the features read from, 0 first.';
COMMENT ON COLUMN score_costs.explainer IS 'Whose explanations were scored, as in scores.explainer.';
COMMENT ON COLUMN score_costs.scorer IS 'How they were scored, as in scores.scorer.';
COMMENT ON COLUMN score_costs.n_scores IS 'How many scores there are (at least 1).';
COMMENT ON COLUMN score_costs.n_ok IS 'How many of them could be measured (at least 0).';
COMMENT ON COLUMN score_costs.n_failed_windows IS 'Sum of scores.n_failed (at least 0).';
COMMENT ON COLUMN score_costs.prompt_tokens IS 'Tokens sent, as their details say (at least 0); NULL where none says it.';
COMMENT ON COLUMN score_costs.completion_tokens IS 'Tokens received, as their details say (at least 0); NULL where none says it.';
COMMENT ON COLUMN score_costs.cost_usd IS 'Cost in US dollars of those whose cost is known (at least 0); NULL where none is.';
COMMENT ON COLUMN score_costs.n_known_cost IS 'How many scores have a known cost (at least 0); 0 US dollars is one.';
COMMENT ON COLUMN score_costs.n_ok_known_cost IS 'How many of these could be measured (at least 0).';

INSERT INTO score_costs BY NAME
SELECT dict_id, layer, explainer, scorer, count(*) AS n_scores, count(score) AS n_ok, sum(n_failed)::BIGINT AS n_failed_windows,
       sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens,
       sum(cost_usd ORDER BY feature, side) AS cost_usd, count(cost_usd) AS n_known_cost,
       count(*) FILTER (cost_usd IS NOT NULL AND score IS NOT NULL) AS n_ok_known_cost
FROM (SELECT dict_id, layer, feature, side, explainer, scorer, score, n_failed, TRY_CAST(said[1] AS BIGINT) AS prompt_tokens,
             TRY_CAST(said[2] AS BIGINT) AS completion_tokens, TRY_CAST(said[3] AS DOUBLE) AS cost_usd
      FROM (SELECT *, TRY(detail->>['$.prompt_tokens', '$.completion_tokens', '$.cost_usd']) AS said FROM scores))
GROUP BY dict_id, layer, explainer, scorer
ORDER BY dict_id, layer, explainer, scorer;
