WITH strongest AS NOT MATERIALIZED (
    SELECT layer, feature, rank, sequence, start, length, position, tokens FROM windows
    WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last AND band = 'top' AND rank < 64
), read AS NOT MATERIALIZED (  -- where a window begins in its tokens; those of earlier harvests have tokens of their own
    SELECT layer, feature, rank, w.start AS first, w.start + w.length AS stop, w.position AS peak, t.tokens
    FROM strongest AS w JOIN (SELECT sequence, tokens FROM harvested_text WHERE dict_id = $dict_id) AS t USING (sequence)
    WHERE w.tokens IS NULL
    UNION ALL
    SELECT layer, feature, rank, 0, len(tokens), position - start, tokens FROM strongest WHERE tokens IS NOT NULL
), beside AS NOT MATERIALIZED (  -- each token is taken by itself: a slice of the list costs twice as much; right before the peak it is told by 2^26, right after it by 2^27
    SELECT layer, feature, rank, unnest([
        if(peak - first >= 1, tokens[peak], NULL), if(peak - first >= 2, tokens[peak - 1], NULL),
        if(peak - first >= 3, tokens[peak - 2], NULL), if(peak - first >= 4, tokens[peak - 3], NULL),
        if(peak - first >= 5, tokens[peak - 4], NULL), if(peak - first >= 6, tokens[peak - 5], NULL),
        if(peak - first >= 7, tokens[peak - 6], NULL), if(peak - first >= 8, tokens[peak - 7], NULL),
        if(peak - first >= 1, tokens[peak] + 67108864, NULL), if(peak + 1 < stop, tokens[peak + 2] + 134217728, NULL)]) AS token
    FROM read
), often AS (
    SELECT layer, feature, token, bit_count(bit_or(1::UBIGINT << rank)) AS n FROM beside
    WHERE token IS NOT NULL GROUP BY layer, feature, token
), known AS (
    SELECT layer, feature, count(*) AS n, count(*) OVER (PARTITION BY layer) AS n_features FROM strongest GROUP BY layer, feature
), commonly AS (
    SELECT layer, token, count(DISTINCT feature) AS n FROM beside WHERE rank = 0 AND token < 67108864 GROUP BY layer, token
)
SELECT $dict_id::VARCHAR AS dict_id, layer, token, ['fires_on', 'follows', 'promotes', 'right_after', 'right_before'][role] AS role, feature, weight, rank,
       md5_number_lower($dict_id::VARCHAR) // 268435456 * 268435456 + [0, 67108864, 134217728, 201326592, 234881024][role]::UBIGINT + (token & 67108863)::UBIGINT AS place
FROM (  -- as in edges_into.sql
    SELECT layer, peak_token AS token, 1 AS role, feature,
           (count(*) / sum(count(*)) OVER (PARTITION BY layer, feature))::FLOAT AS weight, NULL::USMALLINT AS rank
    FROM windows
    WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last AND band = 'top' AND peak_token IS NOT NULL
    GROUP BY layer, peak_token, feature
    UNION ALL
    SELECT layer, token, 2, feature, (o.n / k.n)::FLOAT AS weight, NULL
    FROM (FROM often WHERE n > 1 AND token < 67108864) AS o JOIN known AS k USING (layer, feature) LEFT JOIN commonly AS c USING (layer, token)
    WHERE 2 * o.n >= k.n AND o.n / k.n >= 2 * coalesce(c.n, 1) / n_features
    QUALIFY row_number() OVER (PARTITION BY layer, feature ORDER BY weight * ln(weight * n_features / coalesce(c.n, 1)) DESC, token) <= 5
    UNION ALL
    SELECT layer, token & 67108863, 3 + token // 67108864, feature, (o.n / k.n)::FLOAT, NULL
    FROM (FROM often WHERE n > 1 AND token >= 67108864) AS o JOIN known AS k USING (layer, feature)
    QUALIFY row_number() OVER (PARTITION BY layer, feature, token // 67108864 ORDER BY o.n DESC, token) <= 8
    UNION ALL
    SELECT layer, promoted.token, 3, feature, promoted.value, rank
    FROM (SELECT layer, feature, unnest(top_logits) AS promoted, generate_subscripts(top_logits, 1) AS rank FROM features
          WHERE dict_id = $dict_id AND layer BETWEEN $first AND $last)
    ORDER BY role, token, layer, feature
)
