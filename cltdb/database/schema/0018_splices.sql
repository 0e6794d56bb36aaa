-- What evaluation measures with some of the MLPs replaced.

ALTER TABLE metrics ADD COLUMN variant VARCHAR;

COMMENT ON TABLE metrics IS 'One row per number that was measured while training or evaluating. Key: dict_id, stage, step, layer, name, variant. Replaced together: dict_id, stage. Refers to: dictionaries (dict_id). Export folders: dict_id.';
COMMENT ON COLUMN metrics.layer IS 'Layer, 0 first; NULL for a number pooled over layers. Of variant single: the one layer whose MLP is replaced.';
COMMENT ON COLUMN metrics.variant IS 'Which MLPs are replaced (evaluate.splice): single, all_but_ends, or the layers, such as 1,2,5; NULL: all of them, and every number that no splice changes.';
