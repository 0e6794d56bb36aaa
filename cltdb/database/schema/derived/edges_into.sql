SELECT dict_id, target_layer, target_feature, source_layer, source_feature, virtual_weight, era, twera, coactivation
FROM feature_edges
WHERE dict_id = $dict_id AND target_layer BETWEEN $first AND $last
ORDER BY target_layer, target_feature, source_layer, source_feature
