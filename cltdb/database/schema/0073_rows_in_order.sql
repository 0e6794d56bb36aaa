-- Rows of token_features lie in the order of their place, so that a search reads those of the tokens that it looks for and passes over the rest. Layer by
-- layer, as the rows are made, it read all of the table. Those of large dictionaries are moved once all layers are there.

CREATE TABLE scattered_rows (
    derived VARCHAR NOT NULL,
    dict_id VARCHAR NOT NULL,
    next_place UBIGINT NOT NULL,
    mark VARCHAR NOT NULL,
    PRIMARY KEY (derived, dict_id)
);

COMMENT ON TABLE scattered_rows IS 'One row per dictionary of which the rows of a table made from others are to be moved into the order of their place; empty but while artifacts are loaded, and after a loading process was killed. Rows are moved in pieces, so that all are there at any time.';
COMMENT ON COLUMN scattered_rows.derived IS 'Name of the table.';
COMMENT ON COLUMN scattered_rows.dict_id IS 'Dictionary of the rows.';
COMMENT ON COLUMN scattered_rows.next_place IS 'Rows of a lower place are moved already.';
COMMENT ON COLUMN scattered_rows.mark IS 'Another value each time that rows come in: rows that were read before are then not moved.';

INSERT INTO scattered_rows SELECT 'token_features', dict_id, 0, '' FROM token_features GROUP BY dict_id HAVING count(*) > 1000000;
