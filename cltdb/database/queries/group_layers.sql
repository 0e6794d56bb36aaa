-- What of each layer acts on the answers of each label: features, and errors where the dictionary misses what the MLP writes.
-- Grain: one row per groups_id, label, layer.
-- Order: groups_id, label, layer.
-- Reads: group_prompts.
-- Parameters:
--   $groups_id: text = NULL  only this comparison
--   $dict_id: text = NULL    only this dictionary
-- feature_influence, error_influence: means over the prompts. error_share: errors' part of the influence of both; large where the dictionary
-- serves a label badly, so that nothing should be concluded about its features there. n_active: mean of the active features of a prompt.

WITH layered AS (
    SELECT groups_id, dict_id, label, unnest(range(len(n_active)))::INTEGER AS layer, unnest(n_active) AS n_active,
           unnest(feature_influence) AS feature_influence, unnest(error_influence) AS error_influence
    FROM group_prompts
    WHERE ($groups_id::VARCHAR IS NULL OR groups_id = $groups_id::VARCHAR) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
)
SELECT groups_id, dict_id, label, layer, count(*) AS n_prompts, avg(n_active) AS n_active, avg(feature_influence) AS feature_influence,
       avg(error_influence) AS error_influence,
       sum(error_influence) / nullif(sum(feature_influence) + sum(error_influence), 0) AS error_share
FROM layered
GROUP BY groups_id, dict_id, label, layer
ORDER BY groups_id, label, layer
