WITH score_of AS (
    SELECT dict_id, layer, feature, side, explainer,
           max(score) FILTER (scorer = 'detection') AS detection,
           max(score) FILTER (scorer = 'fuzzing') AS fuzzing,
           avg(score) AS mean_score
    FROM scores
    WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last AND NOT starts_with(explainer, 'baseline:')
    GROUP BY ALL
)
SELECT e.dict_id, e.layer, e.feature, e.side, e.explainer, e.text, coalesce(s.detection, s.fuzzing, s.mean_score) AS score,
       s.detection, s.fuzzing, md5(e.text) AS text_md5, e.feature::BIGINT * 65536 + e.layer AS place
FROM explanations AS e
LEFT JOIN score_of AS s USING (dict_id, layer, feature, side, explainer)
WHERE e.dict_id = $dict_id AND e.layer BETWEEN $first AND $last AND e.status = 'ok' AND NOT starts_with(e.explainer, 'baseline:')
QUALIFY row_number() OVER (PARTITION BY e.layer, e.feature ORDER BY e.side, score DESC NULLS LAST, e.explainer) = 1
ORDER BY e.layer, e.feature
