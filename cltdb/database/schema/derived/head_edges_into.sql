SELECT $dict_id::VARCHAR AS dict_id, * FROM (  -- as in edges_into.sql
    SELECT target_layer, target_feature, source_layer, source_feature, via, virtual_weight
    FROM feature_edges
    WHERE dict_id = $dict_id AND target_layer BETWEEN $first AND $last AND via IS NOT NULL
    ORDER BY target_layer, target_feature, source_layer, source_feature, via
)
