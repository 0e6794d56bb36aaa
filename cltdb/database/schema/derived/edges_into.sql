SELECT $dict_id::VARCHAR AS dict_id, * FROM (  -- sorting rows with a text takes twice as long
    SELECT target_layer, target_feature, source_layer, source_feature, virtual_weight, era, twera, coactivation
    FROM feature_edges
    WHERE dict_id = $dict_id AND target_layer BETWEEN $first AND $last
    ORDER BY target_layer, target_feature, source_layer, source_feature
)
