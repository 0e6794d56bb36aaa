SELECT $dict_id::VARCHAR AS dict_id, * FROM (  -- sorting rows with a text takes twice as long
    SELECT e.target_layer, e.target_feature, e.source_layer, e.source_feature, e.virtual_weight, e.era, e.twera, e.coactivation,
           e.virtual_weight * s.mean_activation AS effect, e.target_layer::BIGINT * 4294967296 + e.target_feature AS target_place
    FROM feature_edges AS e
    LEFT JOIN features AS s ON s.dict_id = $dict_id AND s.layer = e.source_layer AND s.feature = e.source_feature
    WHERE e.dict_id = $dict_id AND e.target_layer BETWEEN $first AND $last AND e.via IS NULL
    ORDER BY e.target_layer, e.target_feature, e.source_layer, e.source_feature
)
