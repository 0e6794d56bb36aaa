-- What users wrote and marked in the browser: labels, notes, pinned and hidden nodes, starred features.
-- Grain: one row per annotation_id.
-- Order: made last first, then annotation_id.
-- Reads: annotations.
-- Parameters:
--   $graph_id: text = NULL                                only of this graph
--   $dict_id: text = NULL                                 only of features of this dictionary
--   $kind: label | note | pin | hide | star = NULL        only of this kind

SELECT annotation_id, kind, graph_id, node_id, dict_id, layer, feature, list, text, author, created_at
FROM annotations
WHERE ($graph_id::VARCHAR IS NULL OR graph_id = $graph_id::VARCHAR) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
  AND ($kind::VARCHAR IS NULL OR kind = $kind::VARCHAR)
ORDER BY created_at DESC, annotation_id
