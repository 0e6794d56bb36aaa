SELECT dict_id, layer, feature, label, n_windows, sum(n_windows) OVER (PARTITION BY layer, feature) AS n_labelled,
       sum(n_windows) OVER (PARTITION BY layer, label) / sum(n_windows) OVER (PARTITION BY layer) AS of_layer
FROM (SELECT dict_id, layer, feature, label, count(*) AS n_windows FROM windows
      WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last AND label IS NOT NULL GROUP BY ALL)
ORDER BY layer, feature, label
