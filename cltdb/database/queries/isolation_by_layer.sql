-- What else moves when one feature is raised by a multiple of its own scale: means over the features that were drawn, in each layer and in all.
-- Grain: one row per dict_id, multiple, layer.
-- Order: dict_id, multiple, layer, all layers together (layer NULL) first.
-- Reads: dictionaries, experiments, isolation, stage_runs.
-- Parameters:
--   $dict_id: text = NULL     only this dictionary
--   $sweep: text = NULL       only this sweep, or this experiment
--   $multiple: number = NULL  only this multiple
-- Low and high ends of 95 %: of the mean over features, Student's, cut off at 0. leakage_same: NULL, which is not 0, of
-- transcoders, which do not read what they write in the same layer; leakage_later: of features before the last layer;
-- kl_nats: of features that are silent in some of the prompts. swept: the values of a sweep's keys, as JSON.

WITH placed AS (
    SELECT d.dict_id, coalesce(e.sweep, d.experiment) AS sweep, coalesce(e.experiment, d.experiment) AS experiment, e.swept
    FROM dictionaries AS d
    LEFT JOIN stage_runs AS r ON r.stage = 'train' AND r.key = d.artifact_key
    LEFT JOIN experiments AS e ON e.experiment = r.experiment AND e.spec_hash = r.spec_hash
    WHERE $sweep::VARCHAR IS NULL OR $sweep::VARCHAR IN (e.sweep, e.experiment, d.experiment)
    QUALIFY row_number() OVER (PARTITION BY d.dict_id ORDER BY e.sweep NULLS LAST, e.created_at, e.experiment, e.spec_hash) = 1
), means AS (
    SELECT dict_id, multiple, layer, count(*) AS n_features,
           avg(leakage_same) AS leakage_same, student(count(leakage_same)) * stddev_samp(leakage_same) / sqrt(count(leakage_same)) AS same_error,
           avg(leakage_later) AS leakage_later, student(count(leakage_later)) * stddev_samp(leakage_later) / sqrt(count(leakage_later)) AS later_error,
           avg(kl_nats) AS kl_nats, student(count(kl_nats)) * stddev_samp(kl_nats) / sqrt(count(kl_nats)) AS kl_error,
           avg(decoder_overlap) AS decoder_overlap, student(count(*)) * stddev_samp(decoder_overlap) / sqrt(count(*)) AS overlap_error,
           avg(own_response) AS own_response, avg(most_change) AS most_change
    FROM isolation
    WHERE is_sampled AND ($dict_id::VARCHAR IS NULL OR dict_id = $dict_id::VARCHAR)
      AND ($multiple::DOUBLE IS NULL OR multiple = $multiple::DOUBLE)
    GROUP BY GROUPING SETS ((dict_id, multiple, layer), (dict_id, multiple))
)
SELECT p.experiment, p.swept, m.dict_id, m.multiple, m.layer, m.n_features,
       m.leakage_same, if(leakage_same < same_error, 0, leakage_same - same_error) AS leakage_same_low, m.leakage_same + same_error AS leakage_same_high,
       m.leakage_later, if(leakage_later < later_error, 0, leakage_later - later_error) AS leakage_later_low, m.leakage_later + later_error AS leakage_later_high,
       m.kl_nats, if(kl_nats < kl_error, 0, kl_nats - kl_error) AS kl_nats_low, m.kl_nats + kl_error AS kl_nats_high,
       m.decoder_overlap, if(decoder_overlap < overlap_error, 0, decoder_overlap - overlap_error) AS decoder_overlap_low, m.decoder_overlap + overlap_error AS decoder_overlap_high,
       m.own_response, m.most_change
FROM means AS m
JOIN placed AS p USING (dict_id)
ORDER BY m.dict_id, m.multiple, m.layer NULLS FIRST
