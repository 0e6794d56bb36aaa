SELECT $dict_id::VARCHAR AS dict_id, layer, token, if(fires, 'fires_on', 'promotes') AS role, feature, weight, rank FROM (  -- as in edges_into.sql
    SELECT layer, peak_token AS token, true AS fires, feature,
           (count(*) / sum(count(*)) OVER (PARTITION BY layer, feature))::FLOAT AS weight, NULL::USMALLINT AS rank
    FROM windows
    WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last AND band = 'top' AND peak_token IS NOT NULL
    GROUP BY layer, peak_token, feature
    UNION ALL
    SELECT layer, promoted.token, false, feature, promoted.value, rank
    FROM (SELECT layer, feature, unnest(top_logits) AS promoted, generate_subscripts(top_logits, 1) AS rank FROM features
          WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last)
    ORDER BY layer, token, NOT fires, feature
)
