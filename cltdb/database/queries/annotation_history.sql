-- Every change that users made in the browser, also those that were taken back or that later ones replaced.
-- Grain: one row per event_id.
-- Order: oldest first, then event_id.
-- Reads: annotation_events.
-- Parameters:
--   $graph_id: text = NULL  only of this graph
--   $dict_id: text = NULL   only of features of this dictionary

SELECT event_id, made_at, author, graph_id, dict_id, op, content
FROM annotation_events
WHERE ($graph_id::VARCHAR IS NULL OR graph_id = $graph_id::VARCHAR) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
ORDER BY made_at, event_id
