-- On which labels of the text (languages, say) one feature fires, against the share of each label in the windows of its layer.
-- Grain: one row per label.
-- Order: lift, highest first, then label.
-- Reads: window_labels.
-- Parameters:
--   $dict_id: text     the dictionary
--   $layer: integer    the layer the feature reads from
--   $feature: integer  its index in the layer
-- Example: -p dict_id=quickstart-clt-9e0e491d -p layer=0 -p feature=222
-- frac: share of the feature's windows with the label, not of the tokens on which it fires: windows are its strongest activations
-- and samples of the others. base_frac: the same share over the windows of all features of the layer. lift: frac / base_frac.
-- Windows without a label are left out; where the text has none, there are no rows.

WITH counted AS (
    SELECT label, coalesce(sum(n_windows) FILTER (feature = $feature::INTEGER), 0) AS n_windows, sum(n_windows) AS n_in_layer
    FROM window_labels
    WHERE dict_id = $dict_id::VARCHAR AND layer = $layer::INTEGER
    GROUP BY label
)
SELECT label, n_windows, n_windows / sum(n_windows) OVER () AS frac, n_in_layer / sum(n_in_layer) OVER () AS base_frac,
       frac / base_frac AS lift
FROM counted
QUALIFY sum(n_windows) OVER () > 0
ORDER BY lift DESC, label
