SELECT $dict_id::VARCHAR AS dict_id, layer, token, if(fires, 'fires_on', 'promotes') AS role, feature, weight, rank,
       md5_number_lower($dict_id::VARCHAR) // 268435456 * 268435456 + if(fires, 0, 134217728)::UBIGINT + (token & 134217727)::UBIGINT AS place
FROM (  -- as in edges_into.sql
    SELECT layer, peak_token AS token, true AS fires, feature,
           (count(*) / sum(count(*)) OVER (PARTITION BY layer, feature))::FLOAT AS weight, NULL::USMALLINT AS rank
    FROM windows
    WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last AND band = 'top' AND peak_token IS NOT NULL
    GROUP BY layer, peak_token, feature
    UNION ALL
    SELECT layer, promoted.token, false, feature, promoted.value, rank
    FROM (SELECT layer, feature, unnest(top_logits) AS promoted, generate_subscripts(top_logits, 1) AS rank FROM features
          WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last)
    ORDER BY layer, NOT fires, token, feature
)
