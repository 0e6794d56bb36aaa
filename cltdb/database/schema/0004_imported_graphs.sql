-- Graphs of other tools: what their files say and no other table does.

ALTER TABLE graphs ADD COLUMN n_layers INTEGER;
ALTER TABLE graphs ADD COLUMN token_strings VARCHAR[];
ALTER TABLE graphs ADD COLUMN total_influence DOUBLE;
ALTER TABLE nodes ADD COLUMN label VARCHAR;
