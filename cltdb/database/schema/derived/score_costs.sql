SELECT dict_id, layer, explainer, scorer, count(*) AS n_scores, count(score) AS n_ok, sum(n_failed)::BIGINT AS n_failed_windows,
       sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens,
       sum(cost_usd ORDER BY feature, side) AS cost_usd, count(cost_usd) AS n_known_cost,  -- in one order, in which it is always the same number
       count(*) FILTER (cost_usd IS NOT NULL AND score IS NOT NULL) AS n_ok_known_cost
FROM (SELECT dict_id, layer, feature, side, explainer, scorer, score, n_failed, TRY_CAST(said[1] AS BIGINT) AS prompt_tokens,
             TRY_CAST(said[2] AS BIGINT) AS completion_tokens, TRY_CAST(said[3] AS DOUBLE) AS cost_usd
      FROM (SELECT *, TRY(detail->>['$.prompt_tokens', '$.completion_tokens', '$.cost_usd']) AS said FROM scores
            WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last))
GROUP BY dict_id, layer, explainer, scorer
ORDER BY layer, explainer, scorer
