-- The models that dictionaries were made for.
-- Grain: one row per model_id.
-- Order: model_id.
-- Reads: dictionaries, graphs, models.
-- Parameters: none

SELECT m.model_id, m.revision, m.architecture, m.n_layers, m.d_model, m.vocab_size, m.max_context,
       (SELECT count(*) FROM dictionaries AS d WHERE d.model_id = m.model_id) AS n_dictionaries,
       (SELECT count(*) FROM graphs AS g WHERE g.model_id = m.model_id) AS n_graphs
FROM models AS m
ORDER BY m.model_id
