-- The comparisons of labels, and how well the model answers the prompts of each label.
-- Grain: one row per groups_id, label.
-- Order: groups_id, label.
-- Reads: group_prompts.
-- Parameters:
--   $groups_id: text = NULL  only this comparison
--   $dict_id: text = NULL    only this dictionary
-- accuracy: share of prompts whose target is the model's likeliest token; probability: the mean of its probability. Both NULL without targets.

SELECT groups_id, dict_id, label, count(*) AS n_concepts, avg(len(tokens)) AS mean_tokens,
       avg((top_token = target_token)::INTEGER) AS accuracy, avg(probability) AS probability,
       avg(replacement_score) AS replacement_score
FROM group_prompts
WHERE ($groups_id::VARCHAR IS NULL OR groups_id = $groups_id::VARCHAR) AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
GROUP BY groups_id, dict_id, label
ORDER BY groups_id, label
