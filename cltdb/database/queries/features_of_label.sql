-- Features whose windows have a label of the text (a language, say) far more often than other features of their layer.
-- Grain: one row per dict_id, layer, feature.
-- Order: lift, highest first, then number of windows with the label, then dict_id, layer, feature.
-- Reads: best_explanations, window_labels.
-- Parameters:
--   $label: text                the label, as activations.text gives it
--   $min_windows: integer = 10  features with at least this many windows that have a label
--   $dict_id: text = NULL       only this dictionary
--   $layer: integer = NULL      only this layer
--   $limit: integer = 100       at most this many rows
-- Example: -p label=en
-- frac: share of the feature's windows with the label (of windows, not of tokens); base_frac: the same over all features of the
-- layer; lift: frac / base_frac.

WITH base AS (
    SELECT dict_id, layer, sum(n_windows) FILTER (label = $label::VARCHAR) / sum(n_windows) AS base_frac
    FROM window_labels
    WHERE ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR) AND ($layer::INTEGER IS NULL OR layer = $layer::INTEGER)
    GROUP BY dict_id, layer
), found AS (
    SELECT w.dict_id, w.layer, w.feature, w.n_labelled, w.n_windows, w.n_windows / w.n_labelled AS frac, b.base_frac,
           frac / b.base_frac AS lift
    FROM window_labels AS w
    JOIN base AS b USING (dict_id, layer)
    WHERE w.label = $label::VARCHAR AND w.n_labelled >= $min_windows::BIGINT
    ORDER BY lift DESC, w.n_windows DESC, w.dict_id, w.layer, w.feature
    LIMIT $limit::BIGINT
)
SELECT f.dict_id, f.layer, f.feature, f.n_labelled, f.n_windows, f.frac, f.base_frac, f.lift, e.text, e.score
FROM found AS f
LEFT JOIN best_explanations AS e USING (dict_id, layer, feature)
ORDER BY f.lift DESC, f.n_windows DESC, f.dict_id, f.layer, f.feature
