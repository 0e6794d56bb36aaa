SELECT dict_id, layer, feature, label, count(*) AS n_windows,
       sum(count(*)) OVER (PARTITION BY layer, feature) AS n_labelled
FROM windows
WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last AND label IS NOT NULL
GROUP BY dict_id, layer, feature, label
ORDER BY layer, feature, label
