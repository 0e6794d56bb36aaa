SELECT $dict_id::VARCHAR AS dict_id, layer, word, feature, count(*) AS n, any_value(length) AS length,  -- as in edges_into.sql
       md5_number_lower($dict_id::VARCHAR || ' ' || word) AS place
FROM (SELECT layer, feature, unnest(words) AS word, len(words) AS length FROM (
      SELECT layer, feature, regexp_extract_all(strip_accents(lower(text)), '[\p{L}\p{M}\p{N}_]+') AS words
      FROM best_explanations WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last))
GROUP BY layer, word, feature
ORDER BY layer, word, feature
