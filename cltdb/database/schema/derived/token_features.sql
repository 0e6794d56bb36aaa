SELECT dict_id, layer, peak_token AS token, 'fires_on' AS role, feature,
       (count(*) / sum(count(*)) OVER (PARTITION BY layer, feature))::FLOAT AS weight
FROM windows
WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last AND band = 'top' AND peak_token IS NOT NULL
GROUP BY dict_id, layer, peak_token, feature
UNION ALL
SELECT dict_id, layer, promoted.token, 'promotes', feature, promoted.value
FROM (SELECT dict_id, layer, feature, unnest(top_logits) AS promoted FROM features
      WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last)
ORDER BY layer, token, role, feature
