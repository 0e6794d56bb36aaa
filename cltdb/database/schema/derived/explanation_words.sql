SELECT dict_id, layer, word, feature, count(*) AS n, sum(count(*)) OVER (PARTITION BY layer, feature) AS length
FROM (SELECT dict_id, layer, feature, unnest(regexp_extract_all(strip_accents(lower(text)), '[\p{L}\p{M}\p{N}_]+')) AS word
      FROM best_explanations WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last)
GROUP BY dict_id, layer, word, feature
ORDER BY layer, word, feature
